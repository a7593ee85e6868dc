//! The hops that request tokens: TokenRequest, Entra, the registry's exchange, and the manifest of an image. Tokens are
//! dropped as soon as the next hop has used them.

use super::{Environment, Pull, hop_finding};
use crate::{
    check::{permissions, reason::Reason, report::Finding},
    fair_semaphore::Lane,
    identity::{
        AssertionSource, ClientSecretReader, EntraClient, EntraToken, Identity, SecretKey, ServicePrincipal,
        WorkloadIdentity, federated_credential_command,
    },
    problem::{self, Problem},
    pull_secret::PullSecretPlan,
    registry::{ManifestStatus, PullToken, RegistryClient, assign_role_command, head_manifest},
    telemetry::Metrics,
    transport::{Caller, Gates, Preconnector, Progress},
    untrusted::UntrustedText,
};

/// More calls than one pull makes at the same time.
const MAX_CONCURRENT_CALLS: u16 = 4;

/// The clients of the webhook.
struct Clients {
    assertions: AssertionSource,
    client_secrets: ClientSecretReader,
    entra: EntraClient,
    registry: RegistryClient,
}

impl Clients {
    fn new(environment: &Environment<'_>) -> Self {
        let (metrics, http) = (Metrics::new(), environment.http);
        let gates = Gates::new(MAX_CONCURRENT_CALLS, metrics.clone());
        let preconnector = Preconnector::new(http.clone(), gates.clone());
        let client = &environment.api.client;
        Self {
            assertions: AssertionSource::new(client.clone(), metrics.clone()),
            client_secrets: ClientSecretReader::new(client.clone()),
            entra: EntraClient::new(http.clone(), preconnector.clone(), gates.clone(), metrics.clone()),
            registry: RegistryClient::new(http.clone(), preconnector, gates, metrics),
        }
    }
}

/// Adds the findings of all hops, until one fails.
pub async fn check(pull: &Pull<'_>, plan: &PullSecretPlan, findings: &mut Vec<Finding>) {
    let clients = Clients::new(pull.environment);
    let caller = Caller {
        namespace: plan.namespace().as_str().into(),
        lane: Lane::Admission,
        progress: Progress::default(),
    };
    let entra = entra_token(pull.environment, &clients, plan, &caller, findings).await;
    let entra = match entra {
        Ok(Some(entra)) => entra,
        Ok(None) => return,
        Err((check, problem)) => return findings.push(hop_finding(check, &problem)),
    };
    let inputs = &plan.inputs;
    findings.push(Finding::ok(
        "Entra",
        format!("issued a token for {}", inputs.identity),
    ));
    let (tenant, scope) = (inputs.identity.tenant_id(), inputs.scope.as_ref());
    let token = clients
        .registry
        .pull_token(&inputs.registry, tenant, scope, &entra, &caller)
        .await;
    match token {
        Err(problem) => findings.push(hop_finding("registry token", &problem)),
        Ok(token) => {
            let token = token.scope_corrected_by(|| plan.patch_scope_command());
            findings.push(match &token.scope_problem {
                Some(problem) => Finding::problem("scope", problem),
                None => Finding::ok("registry token", describe(plan, &token)),
            });
            manifest(pull, plan, &token, findings).await;
        }
    }
}

fn describe(plan: &PullSecretPlan, token: &PullToken) -> String {
    let scope = match &plan.inputs.scope {
        Some(scope) => format!("the scope {scope}"),
        None => "everything that the identity may pull".to_owned(),
    };
    let expires = token.expires.strftime("%F %H:%M UTC");
    format!(
        "{} issued a token for {scope}, valid until {expires}",
        plan.inputs.registry
    )
}

/// The Entra token. `None` if it cannot be requested from here, which the last finding explains.
async fn entra_token(
    environment: &Environment<'_>,
    clients: &Clients,
    plan: &PullSecretPlan,
    caller: &Caller,
    findings: &mut Vec<Finding>,
) -> Result<Option<EntraToken>, (&'static str, Problem)> {
    match &plan.inputs.identity {
        Identity::Workload(workload) => {
            let token = workload_token(clients, workload, caller, findings).await;
            token.map(Some)
        }
        Identity::ServicePrincipal(principal) => {
            findings.extend(readable_by_webhook(environment, principal).await);
            let credentials = clients.client_secrets.read(principal).await;
            let credentials = credentials.map_err(|problem| ("client secret", problem))?;
            findings.push(Finding::ok(
                "client secret",
                format!("{} can be read", principal.client_secret),
            ));
            let token = clients
                .entra
                .exchange_client_secret(principal, credentials, caller)
                .await;
            token.map(Some).map_err(|problem| ("Entra", problem))
        }
        Identity::Managed(managed) => {
            let message = format!(
                "{managed} can be used only by the webhook's own Pods, so its token is not requested here"
            );
            findings.push(Finding::unknown("Entra", Reason::NotChecked, message));
            Ok(None)
        }
    }
}

/// The Entra token of a service account.
async fn workload_token(
    clients: &Clients,
    workload: &WorkloadIdentity,
    caller: &Caller,
    findings: &mut Vec<Finding>,
) -> Result<EntraToken, (&'static str, Problem)> {
    const CHECK: &str = "TokenRequest";
    let assertion = clients
        .assertions
        .assertion(workload)
        .await
        .map_err(|problem| (CHECK, problem))?;
    if let Some(claims) = assertion.claims() {
        let message = format!(
            "the assertion has iss {}, sub {}, aud {}; this federated credential fits:",
            UntrustedText::new(&claims.iss),
            UntrustedText::new(&claims.sub),
            UntrustedText::new(&claims.aud.to_string())
        );
        let issuer = assertion.origin().issuer;
        let command = federated_credential_command("create", workload, &issuer);
        findings.push(Finding::ok(CHECK, message).commands(command));
    }
    let token = clients
        .entra
        .exchange_assertion(workload, assertion, caller)
        .await;
    token.map_err(|problem| ("Entra", problem))
}

/// Whether the webhook may read the Secrets of a service principal. A Secret that does not exist is found later.
async fn readable_by_webhook(environment: &Environment<'_>, principal: &ServicePrincipal) -> Option<Finding> {
    const CHECK: &str = "client secret";
    let Environment { api, target, .. } = environment;
    for key in [&principal.client_id, &principal.client_secret] {
        let SecretKey { namespace, name, .. } = key;
        match permissions::may_read_secret(api, target, namespace, name).await {
            Ok(true) => {}
            Ok(false) => {
                let message = format!(
                    "the webhook may not read Secret {namespace}/{name}, which holds the service principal"
                );
                let problem = Problem::new(problem::Reason::SecretReadForbidden, message);
                let (role, account) = (format!("acr-pull-webhook-reads-{name}"), target.service_account());
                let own = &target.namespace;
                return Some(Finding::problem(CHECK, &problem).command(format!(
                    "kubectl create role {role} --namespace {namespace} --verb=get --resource=secrets \
                     --resource-name={name} \
                     && kubectl create rolebinding {role} --namespace {namespace} --role={role} \
                     --serviceaccount={own}:{account}"
                )));
            }
            Err(unread) => {
                return Some(unread.finding(
                    CHECK,
                    &format!("the permission of the webhook to read Secret {namespace}/{name}"),
                ));
            }
        }
    }
    None
}

/// Requests the manifest of the image.
async fn manifest(pull: &Pull<'_>, plan: &PullSecretPlan, token: &PullToken, findings: &mut Vec<Finding>) {
    const CHECK: &str = "manifest";
    let registry = &plan.inputs.registry;
    let Some(image) = pull
        .image
        .as_ref()
        .filter(|image| image.registry == registry.as_str())
    else {
        return;
    };
    let (repository, reference) = (&image.repository, &image.reference);
    let http = pull.environment.http;
    findings.push(match head_manifest(http, registry, image, &token.secret).await {
        Ok(ManifestStatus::Found) => Finding::ok(CHECK, format!("{registry} has {repository}, {reference}")),
        Ok(ManifestStatus::NotFound) => {
            let message = format!("{registry} has no image {reference} in the repository {repository}; correct the image");
            let name = registry.as_str().split('.').next().unwrap_or_default();
            let command = format!("az acr repository show-tags --name {name} --repository {repository}");
            Finding::failed(CHECK, Reason::ImageNotFound, message).command(command)
        }
        Ok(ManifestStatus::Refused(status)) => {
            let message = format!(
                "{registry} refuses the token for the repository {repository} with HTTP {status}: grant the identity \
                 access to it, or correct spec.scope"
            );
            let identity = plan.inputs.identity.workload();
            let client_id = identity.map(|identity| identity.client_id.as_str());
            Finding::failed(CHECK, Reason::ImageForbidden, message)
                .command(assign_role_command(registry.as_str(), client_id))
        }
        Err(why) => {
            let message = format!("the manifest could not be requested: {}", UntrustedText::new(&why));
            Finding::unknown(CHECK, Reason::NotChecked, message)
        }
    });
}
