# Tests: which clusters and which machines the scripts may change. Sourced by test.sh.
# shellcheck shell=bash disable=SC2154 # the variables are those of test.sh

# The same cluster by a context of another name, as in the kubeconfig of a user.
a_cluster_that_is_not_kinds_is_refused_unless_its_context_is_named() {
  local script
  kubectl config view --raw --flatten | sed 's/kind-acr-pull-self-test/production/' >"$work/production"
  kubectl get all,namespaces --all-namespaces -o name >"$work/before"
  for script in demo.sh deploy.sh run.sh helm.sh; do
    contains "$(KUBECONFIG=$work/production refusal "$root/tests/e2e/$script")" "set ACR_PULL_CONTEXT='production'"
  done
  contains "$(KUBECONFIG=$work/production refusal make -C "$root" test)" "set ACR_PULL_CONTEXT='production'"
  equal "$(<"$work/before")" "$(kubectl get all,namespaces --all-namespaces -o name)"
  export KUBECONFIG=$work/production
  contains "$(ACR_PULL_CONTEXT=production "$root/tests/e2e/run.sh" check 2>&1)" "context 'production'"
  contains "$(ACR_PULL_CONTEXT=absent refusal "$root/tests/e2e/run.sh" check)" "no context 'absent'"
}

tests_refuse_to_replace_a_webhook_that_they_did_not_deploy() {
  kubectl config view --raw --flatten >"$work/users"
  kubectl create namespace acr-pull-webhook
  contains "$(KUBECONFIG=$work/users refusal "$root/tests/e2e/run.sh" helm)" \
    "is installed on this cluster, and not by these tests"
  kubectl label namespace acr-pull-webhook acr-pull.dev/end-to-end-tests=true
  KUBECONFIG=$work/users "$root/tests/e2e/run.sh" check
  kubectl delete namespace acr-pull-webhook
}

packages_are_not_installed_without_consent() {
  export XDG_CACHE_HOME=$work CI=
  # On a terminal, on which nobody answers. script prints what the program prints on standard error.
  on_a_terminal() {
    script --quiet --return --command "$*" /dev/null </dev/null >&2
  }
  contains "$(refusal on_a_terminal "$root/deploy/packages.sh" no-such-package)" "make packages"
  # In the background, where a process that reads from the terminal is stopped.
  contains "$(refusal on_a_terminal bash -mc "'timeout --signal=KILL 20 $root/deploy/packages.sh no-such-package & wait \$!'")" \
    "make packages"
}
