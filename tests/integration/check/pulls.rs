//! Pulls that do not work: because of the user's objects, of Entra, of the registry, or of the network.

use super::{
    installation::{Installation, pull},
    table::{Break, Fix, Row, assert_pulls, row},
};
use azure_emulator::{Effect, Endpoint, Fault, StatusCode};
use serde_json::json;

const PRINTED: Fix = Fix::Printed(&[
    ("CLIENT_ID", "OWN_CLIENT"),
    ("TENANT_ID", "11111111-1111-1111-1111-111111111111"),
    ("repository:REPOSITORY:", "repository:team-a/app:"),
    ("REGISTRY.azurecr.io", "contoso.azurecr.io"),
]);
/// Makes the generator as it was.
const RESTORE: Fix = Fix::Shell(
    "kubectl apply --server-side --force-conflicts --field-manager=test --filename - <<'YAML'
apiVersion: generators.external-secrets.io/v1alpha1
kind: ACRAccessToken
metadata: {name: contoso, namespace: TEAM_A}
spec:
  registry: contoso.azurecr.io
  tenantId: 11111111-1111-1111-1111-111111111111
  auth: {workloadIdentity: {}}
YAML
kubectl patch acraccesstoken --namespace TEAM_A contoso --type merge \
  --patch '{\"spec\": {\"environmentType\": \"PublicCloud\", \"scope\": null, \"auth\": {\"servicePrincipal\": null, \
  \"managedIdentity\": null, \"workloadIdentity\": {\"serviceAccountRef\": null}}}}'",
);

macro_rules! patch {
    ($spec:literal) => {
        Break::Shell(concat!(
            "kubectl patch acraccesstoken --namespace TEAM_A contoso --type merge --patch '{\"spec\": ",
            $spec,
            "}'"
        ))
    };
}

fn generators() -> Vec<Row> {
    vec![
        row(
            "a missing generator",
            Break::Shell("kubectl delete acraccesstoken --namespace TEAM_A contoso"),
            "GeneratorNotFound",
            RESTORE,
        ),
        row(
            "no identity",
            patch!("{\"auth\": {\"workloadIdentity\": null}}"),
            "GeneratorInvalid",
            RESTORE,
        ),
        row(
            "Azure Stack Hub without an authority host",
            patch!("{\"environmentType\": \"AzureStackCloud\"}"),
            "GeneratorInvalid",
            RESTORE,
        ),
        row(
            "a registry without its domain",
            patch!("{\"registry\": \"contoso\"}"),
            "RegistryNotAllowed",
            PRINTED,
        ),
        row(
            "a registry of another domain",
            patch!("{\"registry\": \"registry.example.com\"}"),
            "RegistryNotAllowed",
            PRINTED,
        ),
        row(
            "a wildcard in the scope",
            patch!("{\"scope\": \"repository:*:pull\"}"),
            "ScopeInvalid",
            PRINTED,
        ),
        row(
            "a misspelt repository in the scope",
            patch!("{\"scope\": \"repository:team-a/ap:pull\"}"),
            "ScopeNotGranted",
            PRINTED,
        ),
        row(
            "an image outside the scope",
            patch!("{\"scope\": \"repository:team-a/tools:pull\"}"),
            "ImageOutsideScope",
            PRINTED,
        ),
    ]
}

fn principals() -> Vec<Row> {
    vec![
        row(
            "a service account of another namespace",
            patch!(r#"{"auth": {"workloadIdentity": {"serviceAccountRef": {"name": "app", "namespace": "default"}}}}"#),
            "CrossNamespaceNotAllowed",
            RESTORE,
        ),
        row(
            "a service principal whose Secret is missing",
            patch!(
                "{\"auth\": {\"servicePrincipal\": {\"secretRef\": {\"clientId\": {\"name\": \"sp\", \"key\": \"id\"}, \
                 \"clientSecret\": {\"name\": \"sp\", \"key\": \"secret\"}}}}}"
            ),
            "SecretNotFound",
            RESTORE,
        ),
        row(
            "a service principal whose Secret the webhook may not read",
            Break::Shell(
                "kubectl create secret generic --namespace TEAM_A sp \
                   --from-literal=id=dddddddd-dddd-dddd-dddd-dddddddddddd \
                   --from-literal=secret=Kq8~correct-horse-battery-staple
                 kubectl patch acraccesstoken --namespace TEAM_A contoso --type merge --patch '{\"spec\": {\"auth\": \
                 {\"servicePrincipal\": {\"secretRef\": {\"clientId\": {\"name\": \"sp\", \"key\": \"id\"}, \
                 \"clientSecret\": {\"name\": \"sp\", \"key\": \"secret\"}}}}}}'",
            ),
            "SecretReadForbidden",
            PRINTED,
        ),
        row(
            "a client secret with another value",
            Break::Shell(
                "kubectl patch secret --namespace TEAM_A sp --patch '{\"stringData\": {\"secret\": \"wrong\"}}'",
            ),
            "EntraRefused",
            Fix::Shell(
                "kubectl patch secret --namespace TEAM_A sp \
                 --patch '{\"stringData\": {\"secret\": \"Kq8~correct-horse-battery-staple\"}}'",
            ),
        ),
        row(
            "a client id that is not in the Secret",
            Break::Shell(
                "kubectl patch secret --namespace TEAM_A sp --type json --patch '[{\"op\": \"remove\", \"path\": \
                 \"/data/id\"}]'",
            ),
            "SecretInvalid",
            RESTORE,
        ),
        row(
            "a managed identity in a namespace that may not use it",
            patch!("{\"auth\": {\"managedIdentity\": {}}}"),
            "ManagedIdentityNotAllowed",
            RESTORE,
        ),
    ]
}

fn identities() -> Vec<Row> {
    vec![
        row(
            "a missing service account",
            Break::Shell("kubectl delete serviceaccount --namespace TEAM_A app"),
            "ServiceAccountNotFound",
            PRINTED,
        ),
        row(
            "no client id",
            Break::Shell(
                "kubectl annotate serviceaccount --namespace TEAM_A app azure.workload.identity/client-id-",
            ),
            "ClientIdMissing",
            PRINTED,
        ),
        row(
            "no tenant id",
            patch!("{\"tenantId\": null}"),
            "TenantIdMissing",
            PRINTED,
        ),
        row(
            "a client id that is not a GUID",
            Break::Shell(
                "kubectl annotate serviceaccount --overwrite --namespace TEAM_A app \
                 azure.workload.identity/client-id=app",
            ),
            "IdentityInvalid",
            Fix::Shell(
                "kubectl annotate serviceaccount --overwrite --namespace TEAM_A app \
                 azure.workload.identity/client-id=aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
            ),
        ),
    ]
}

fn federated() -> Vec<Row> {
    vec![
        row(
            "no federated credential",
            Break::Azure(|world| world["tenants"][0]["applications"][0]["federatedCredentials"] = json!([])),
            "FederatedCredentialNotFound",
            Fix::Az,
        ),
        row(
            "a federated credential for another audience",
            Break::Azure(|world| {
                let credentials = &mut world["tenants"][0]["applications"][0]["federatedCredentials"];
                for credential in credentials.as_array_mut().unwrap() {
                    credential["audience"] = json!("api://other");
                }
            }),
            "FederatedCredentialNotFound",
            Fix::Az,
        ),
        row(
            "an unknown application",
            Break::Azure(|world| {
                world["tenants"][0]["applications"]
                    .as_array_mut()
                    .unwrap()
                    .remove(0);
                world["registries"][0]["rights"].as_array_mut().unwrap().remove(0);
            }),
            "EntraRefused",
            Fix::Azure,
        ),
        row(
            "no role on the registry",
            Break::Azure(|world| world["registries"][0]["rights"] = json!([])),
            "RoleAssignmentNotFound",
            Fix::Az,
        ),
    ]
}

fn throttled(endpoint: Endpoint) -> Fault {
    let effect = Effect::Status {
        code: StatusCode::TOO_MANY_REQUESTS,
        retry_after: Some(1),
        body: None,
    };
    Fault::new(endpoint, effect)
}

fn outages() -> Vec<Row> {
    vec![
        row(
            "a proxy that does not connect to Entra",
            Break::Azure(|world| world["unreachableHosts"] = json!(["login.microsoftonline.com"])),
            "ProxyFailed",
            Fix::Azure,
        ),
        row(
            "a proxy that does not connect to the registry",
            Break::Azure(|world| world["unreachableHosts"] = json!(["contoso.azurecr.io"])),
            "ProxyFailed",
            Fix::Azure,
        ),
        row(
            "Entra is throttling",
            Break::Fault(|| throttled(Endpoint::EntraToken)),
            "EntraThrottled",
            Fix::Azure,
        ),
        row(
            "the registry is throttling",
            Break::Fault(|| throttled(Endpoint::AcrExchange)),
            "RegistryThrottled",
            Fix::Azure,
        ),
        row(
            "the network rules of the registry",
            Break::Fault(|| Fault::new(Endpoint::AcrExchange, Effect::status(StatusCode::FORBIDDEN))),
            "RegistryRefused",
            Fix::Azure,
        ),
        row(
            "an outage of Entra",
            Break::Fault(|| {
                Fault::new(
                    Endpoint::EntraToken,
                    Effect::status(StatusCode::SERVICE_UNAVAILABLE),
                )
            }),
            "EntraUnavailable",
            Fix::Azure,
        ),
    ]
}

fn arguments() -> Vec<Row> {
    let nothing = || Fix::Shell("true");
    vec![
        row("a missing image", Break::No, "ImageNotFound", nothing()).with_arguments(
            "check --namespace TEAM_A contoso --service-account app --image contoso.azurecr.io/team-a/app:missing",
        ),
        row("an image of another registry", Break::No, "RegistryNotUsed", nothing()).with_arguments(
            "check --namespace TEAM_A contoso --service-account app --image fabrikam.azurecr.io/team-a/app:1",
        ),
        row("an image of another team", Break::No, "ImageForbidden", nothing()).with_arguments(
            "check --namespace TEAM_A contoso --service-account app --image contoso.azurecr.io/team-b/app:1",
        ),
        row("a certificate authority that is not trusted", Break::No, "CertificateNotTrusted", nothing())
            .with_arguments(
                "check --namespace TEAM_A contoso --service-account app -- \
                 --extra-ca-file=$(dirname $KUBECONFIG)/pki/ca.crt",
            ),
        row("an invalid reference", Break::No, "InvalidAnnotation", nothing())
            .with_arguments("check --namespace TEAM_A Contoso"),
        row("a missing ClusterGenerator", Break::No, "GeneratorNotFound", nothing())
            .with_arguments("check --namespace TEAM_A ClusterGenerator/contoso"),
        row("the service account of Pods that name none", Break::No, "ClientIdMissing", nothing())
            .with_arguments("check --namespace TEAM_A contoso"),
        row("an excluded namespace", Break::No, "NamespaceExcluded", nothing())
            .with_arguments("check --namespace kube-system contoso --only=pull"),
    ]
}

#[testkit::test]
async fn each_broken_pull_has_its_reason_and_is_corrected() {
    testkit::allow_more_time(std::time::Duration::from_secs(300));
    let installation = Installation::start().await;
    let well = format!("check --only=pull {}", pull());
    installation
        .wait_until_well(well.trim_start_matches("check "))
        .await;
    for row in [
        generators(),
        principals(),
        identities(),
        federated(),
        outages(),
        arguments(),
    ]
    .into_iter()
    .flatten()
    {
        row.run(&installation, &well).await;
        assert_pulls(&installation, row.name).await;
    }
}

#[testkit::test]
async fn the_report_of_a_pull_names_the_claims_and_the_credential_that_fits() {
    let installation = Installation::start().await;
    let report = installation.check(&format!("--only=pull {}", pull())).await;
    let findings = report.json["sections"].as_array().unwrap().iter();
    let findings: Vec<_> = findings
        .flat_map(|section| section["findings"].as_array().unwrap())
        .collect();
    let of = |check: &str| *findings.iter().find(|finding| finding["check"] == check).unwrap();
    let request = of("TokenRequest");
    let subject = format!("system:serviceaccount:{}:app", installation.env.team_a.namespace);
    let message = request["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("sub {subject}, aud [\"api://AzureADTokenExchange\"]")),
        "{message}"
    );
    let command = request["commands"][0].as_str().unwrap();
    assert!(
        command.starts_with("az identity federated-credential create "),
        "{command}"
    );
    assert!(
        command.contains(&format!(
            "--subject {subject} --audiences api://AzureADTokenExchange"
        )),
        "{command}"
    );
    assert!(
        of("manifest")["message"]
            .as_str()
            .unwrap()
            .contains("has team-a/app, 1")
    );
}
