module acr-pull-webhook/tests/e2e/app

go 1.24
