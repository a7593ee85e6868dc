use super::*;
use crate::problem::MAX_SENTENCE_BYTES;
use crate::{
    identity::{ForMessages, SecretKey},
    names::{NamespaceName, ObjectName},
    reference::{Kind, Reference},
    untrusted::hostile,
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

const CLIENT: &str = "11111111-0000-0000-0000-000000000001";
const ISSUER: &str = "https://oidc.example.com/cluster/";

fn cloud() -> CloudEndpoints {
    CloudEndpoints {
        authority_host: "login.microsoftonline.com".to_owned(),
        acr_audience: "https://containerregistry.azure.net".to_owned(),
    }
}

fn workload(tenant_id_source: TenantIdSource) -> WorkloadIdentity {
    WorkloadIdentity {
        namespace: NamespaceName::new("team-a").unwrap(),
        service_account: ObjectName::new("app").unwrap(),
        client_id: CLIENT.to_owned(),
        client_id_annotation: ForMessages("azure.workload.identity/client-id"),
        tenant_id: "contoso.example".to_owned(),
        tenant_id_source: ForMessages(tenant_id_source),
        audiences: vec!["api://AzureADTokenExchange".to_owned()],
        cloud: cloud(),
    }
}

/// The time of the API server, which signs assertions.
const ISSUED_AT: i64 = 1_700_000_000;

fn origin(issuer: &str) -> AssertionOrigin {
    AssertionOrigin {
        issuer: issuer.to_owned(),
        issued_at: Timestamp::from_second(ISSUED_AT).ok(),
    }
}

/// The problem of a service account that Entra refuses with this code.
fn workload_problem(code: u32, tenant_id_source: TenantIdSource, issuer: &str) -> Problem {
    let identity = workload(tenant_id_source);
    let caller = EntraCaller::Workload {
        identity: &identity,
        origin: origin(issuer),
    };
    caller.problem_of(&error(code))
}

/// The problem of a service principal that Entra refuses with this code.
fn principal_problem(code: u32) -> Problem {
    let key = |key: &str| SecretKey {
        namespace: NamespaceName::new("team-a").unwrap(),
        name: ObjectName::new("sp").unwrap(),
        key: key.to_owned(),
    };
    let principal = ServicePrincipal {
        client_id: key("id"),
        client_secret: key("secret"),
        tenant_id: "contoso.example".to_owned(),
        tenant_id_source: ForMessages(TenantIdSource::Flag),
        cloud: cloud(),
    };
    let caller = EntraCaller::Principal {
        principal: &principal,
        client_id: CLIENT.to_owned(),
    };
    caller.problem_of(&error(code))
}

fn error(code: u32) -> EntraError {
    error_with(code, "Entra's description.\r\nTrace ID: 1")
}

fn error_with(code: u32, description: &str) -> EntraError {
    let body = json!({
        "error": "invalid_client",
        "error_description": format!("AADSTS{code}: {description}"),
        "error_codes": [code],
    });
    EntraError::response(401, body.to_string().as_bytes(), None)
}

const ANNOTATION: TenantIdSource = TenantIdSource::Annotation("azure.workload.identity/tenant-id");

/// A code, its reason, and parts of the message that explains it.
const CODES: &[(u32, Reason, &[&str])] = &[
    (
        70_021,
        Reason::FederatedCredentialNotFound,
        &[
            "az identity federated-credential create",
            "system:serviceaccount:team-a:app",
            ISSUER,
            "--audiences api://AzureADTokenExchange",
            "has no federated credential for service account team-a/app",
        ],
    ),
    (
        70_025,
        Reason::FederatedCredentialNotFound,
        &["az identity federated-credential create", CLIENT],
    ),
    (
        700_211,
        Reason::FederatedCredentialNotFound,
        &["--issuer https://oidc.example.com/cluster/ "],
    ),
    (
        700_213,
        Reason::FederatedCredentialNotFound,
        &[
            "--subject system:serviceaccount:team-a:app ",
            "federated-credential create",
        ],
    ),
    (
        700_212,
        Reason::FederatedCredentialNotFound,
        &[
            "--audiences api://AzureADTokenExchange",
            "federated-credential update",
        ],
    ),
    (
        7_002_138,
        Reason::FederatedCredentialNotFound,
        &[
            "--subject system:serviceaccount:team-a:app ",
            "federated-credential update",
        ],
    ),
    (
        700_016,
        Reason::EntraRefused,
        &[
            "kubectl annotate serviceaccount --overwrite --namespace team-a app azure.workload.identity/client-id=",
            CLIENT,
        ],
    ),
    (7_000_112, Reason::EntraRefused, &["az ad sp update --id", CLIENT]),
    (
        90_002,
        Reason::EntraRefused,
        &[
            "kubectl annotate serviceaccount --overwrite --namespace team-a app azure.workload.identity/tenant-id=",
        ],
    ),
    (
        700_024,
        Reason::ClockSkewed,
        &["synchronize the clock of the API server"],
    ),
    (
        50_105,
        Reason::EntraRefused,
        &[
            "service account team-a/app",
            "https://login.microsoftonline.com/error?code=50105",
        ],
    ),
    (
        700_027,
        Reason::EntraRefused,
        &[
            "kubectl get --raw /openid/v1/jwks",
            "https://oidc.example.com/cluster/.well-known/openid-configuration",
        ],
    ),
    (
        50_027,
        Reason::EntraRefused,
        &["kubectl get --raw /openid/v1/jwks"],
    ),
    (
        7_000_272,
        Reason::EntraRefused,
        &["kubectl get --raw /openid/v1/jwks"],
    ),
    (
        90_061,
        Reason::EntraUnavailable,
        &["curl https://oidc.example.com/cluster/.well-known/openid-configuration"],
    ),
    (
        501_661,
        Reason::EntraUnavailable,
        &["curl https://oidc.example.com/cluster/.well-known/openid-configuration"],
    ),
    (7_000_229, Reason::EntraRefused, &["az ad sp create --id", CLIENT]),
    (
        500_011,
        Reason::EntraRefused,
        &["--acr-audience", "https://containerregistry.azure.net"],
    ),
    (500_014, Reason::EntraRefused, &["--acr-audience"]),
    (53_003, Reason::EntraRefused, &["contoso.example", CLIENT]),
    (90_014, Reason::EntraRefused, &["report it"]),
    (900_144, Reason::EntraRefused, &["report it"]),
];

#[test]
fn each_code_names_the_object_and_the_command_that_fixes_it() {
    for &(code, reason, parts) in CODES {
        let problem = workload_problem(code, ANNOTATION, ISSUER);
        assert_eq!(problem.reason, reason, "{problem}");
        let text = problem.full();
        let aadsts = format!("AADSTS{code}");
        for part in parts.iter().copied().chain([aadsts.as_str()]) {
            assert!(text.contains(part), "{part:?} is missing: {text}");
        }
        assert!(!text.contains("Trace ID"), "{text}");
    }
}

#[test]
fn a_bad_client_secret_is_reported_with_its_secret_key() {
    for code in [7_000_215, 7_000_222] {
        let problem = principal_problem(code);
        assert_eq!(problem.reason, Reason::EntraRefused);
        for part in [
            "key \"secret\" of Secret team-a/sp",
            "kubectl patch secret --namespace team-a sp --patch '{\"stringData\":{\"secret\":\"PASSWORD\"}}'",
        ] {
            assert!(problem.full().contains(part), "{part:?} is missing: {problem}");
        }
    }
    let wrong_id = principal_problem(700_016).command.unwrap();
    assert_eq!(
        wrong_id.as_str(),
        "kubectl patch secret --namespace team-a sp --patch '{\"stringData\":{\"id\":\"CLIENT_ID\"}}'"
    );
}

#[test]
fn a_wrong_tenant_id_is_reported_with_the_place_that_configures_it() {
    let problem = |from| workload_problem(90_002, from, ISSUER);
    for (kind, command) in [
        (
            Kind::AccessToken,
            "kubectl patch acraccesstoken contoso --namespace team-a --type merge --patch \
             '{\"spec\":{\"tenantId\":\"TENANT_ID\"}}'",
        ),
        (
            Kind::ClusterGenerator,
            "kubectl patch clustergenerator contoso --type merge --patch \
             '{\"spec\":{\"generator\":{\"acrAccessTokenSpec\":{\"tenantId\":\"TENANT_ID\"}}}}'",
        ),
    ] {
        let name = ObjectName::new("contoso").unwrap();
        let namespace = NamespaceName::new("team-a").unwrap();
        let problem = problem(TenantIdSource::Generator(Reference { kind, name }, namespace));
        assert!(problem.fact.contains("correct spec.tenantId of"), "{problem}");
        assert_eq!(problem.command.unwrap().as_str(), command);
    }
    assert!(problem(TenantIdSource::Flag).fact.contains("--tenant-id"));
}

#[test]
fn a_cluster_internal_issuer_is_reported_as_unreachable_for_entra() {
    for code in [700_211, 90_061] {
        let sentence = |issuer| workload_problem(code, ANNOTATION, issuer).sentence();
        assert!(
            sentence("https://kubernetes.default.svc.cluster.local").contains("give the cluster a public")
        );
        assert!(!sentence(ISSUER).contains("give the cluster a public"));
    }
}

#[test]
fn a_description_without_a_command_is_printed_unchanged() {
    let problem = workload_problem(50_000, ANNOTATION, ISSUER);
    assert!(problem.sentence().contains("(Entra's description)"), "{problem}");
}

#[test]
fn a_wrong_clock_is_reported_with_its_difference() {
    let identity = workload(ANNOTATION);
    let caller = EntraCaller::Workload {
        identity: &identity,
        origin: origin(ISSUER),
    };
    for (date, words) in [
        (
            ISSUED_AT - 700,
            "the API server's clock is 700 s ahead of Entra's",
        ),
        (
            ISSUED_AT + 3600,
            "the API server's clock is 3600 s behind Entra's",
        ),
    ] {
        let error = error(700_024).at(Timestamp::from_second(date).ok());
        let problem = caller.problem_of(&error);
        assert_eq!(problem.reason, Reason::ClockSkewed);
        assert!(problem.to_string().contains(words), "{problem}");
    }
}

/// The own words of each sentence are complete with names of usual lengths, and the sentence and its link with all.
#[test]
fn the_advice_on_each_code_is_one_sentence_with_a_whole_command() {
    for (length, is_usual) in [(20, true), (63, false), (253, false)] {
        let mut identity = workload(ANNOTATION);
        identity.namespace = NamespaceName::new(&"n".repeat(length.min(63))).unwrap();
        identity.service_account = ObjectName::new(&"s".repeat(length)).unwrap();
        identity.tenant_id = "72f988bf-0000-0000-0000-000000000000".to_owned();
        let caller = EntraCaller::Workload {
            identity: &identity,
            origin: origin(
                "https://westeurope.oic.prod-aks.azure.com/72f988bf-0000-0000-0000-000000000000/1/",
            ),
        };
        for &(code, reason, _) in CODES {
            let problem = caller.problem_of(&error_with(code, &"why ".repeat(200)));
            let text = problem.to_string();
            assert!(text.len() <= MAX_SENTENCE_BYTES, "{text}");
            assert!(text.ends_with(&reason.link()), "{text}");
            assert!(
                !is_usual || text.contains(&problem.fact),
                "{text}: {}",
                problem.fact
            );
            if let Some(command) = &problem.command {
                assert!(problem.full().ends_with(&format!("\n{command}")), "{text}");
                assert!(!command.as_str().contains('…'), "{command}");
            }
        }
    }
}

proptest! {
    #[test]
    fn shell_characters_of_a_description_never_reach_a_command(
        code in prop::sample::select(&[70_021, 700_212, 700_016, 7_000_112, 7_000_215, 90_002, 500_011, 50_027, 1][..]),
        description in hostile::text(),
    ) {
        let identity = workload(ANNOTATION);
        let caller = EntraCaller::Workload { identity: &identity, origin: origin(ISSUER) };
        hostile::check(&caller.problem_of(&error_with(code, &description)).full());
    }
}
