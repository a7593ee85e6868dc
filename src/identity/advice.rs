//! Entra's refusals in words: who was refused, why, and the command that mends it.
//! Source of the codes: <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.

use super::{
    CloudEndpoints, SecretKey, ServicePrincipal, TenantFrom, WorkloadIdentity,
    entra_error::{EntraError, Fault},
};
use crate::{
    foreign::Foreign,
    problem::{Problem, Reason},
};
use std::{error::Error, fmt};

/// Who asked Entra, with all that a person has to know to mend a refusal.
pub enum Asker<'a> {
    /// A service account.
    Workload {
        /// Which one.
        identity: &'a WorkloadIdentity,
        /// The issuer of its assertion.
        issuer: String,
    },
    /// A service principal.
    Principal {
        /// Where its secret is kept.
        principal: &'a ServicePrincipal,
        /// The client id that was found there.
        client_id: String,
    },
}

// === impl Asker ===

impl Asker<'_> {
    /// The client id that asked.
    pub fn client_id(&self) -> &str {
        match self {
            Asker::Workload { identity, .. } => &identity.client_id,
            Asker::Principal { client_id, .. } => client_id,
        }
    }

    /// The tenant that was asked.
    pub fn tenant_id(&self) -> &str {
        self.tenant().0
    }

    /// Whose Entra was asked.
    pub fn cloud(&self) -> &CloudEndpoints {
        match self {
            Asker::Workload { identity, .. } => &identity.cloud,
            Asker::Principal { principal, .. } => &principal.cloud,
        }
    }

    fn tenant(&self) -> (&str, &TenantFrom) {
        match self {
            Asker::Workload { identity, .. } => (&identity.tenant_id, &identity.tenant_from),
            Asker::Principal { principal, .. } => (&principal.tenant_id, &principal.tenant_from),
        }
    }

    /// Finds our transport's typed error under azure_identity's, and puts it in words.
    pub fn problem(&self, error: &azure_core::Error) -> Problem {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(current) = cause {
            if let Some(entra) = current.downcast_ref::<EntraError>() {
                return self.answered(entra);
            }
            cause = current.source();
        }
        // Only what azure_identity will not send at all, such as a malformed tenant id.
        Problem::new(
            Reason::EntraRefused,
            format!("{self} cannot be used: {}", Foreign::new(&error.to_string())),
        )
    }

    fn answered(&self, error: &EntraError) -> Problem {
        let host = &self.cloud().authority_host;
        let advice = error.code().and_then(|code| self.advice(code));
        // The name of a tenant is in its words, and advice is a command to paste.
        let words = match advice {
            Some(_) => Foreign::inert(error.words()),
            None => Foreign::new(error.words()),
        };
        let advice = advice.map(|advice| format!("; {advice}")).unwrap_or_default();
        let (reason, message) = match error.fault() {
            Fault::Unreachable(cause) => (
                Reason::EntraUnavailable,
                format!("{host} was not reached: {}", Foreign::new(cause)),
            ),
            Fault::Unreadable => (
                Reason::EntraUnavailable,
                format!(
                    "{host} answered {} with a body that is not Entra's",
                    error.status()
                ),
            ),
            Fault::Throttled => (
                Reason::EntraThrottled,
                format!("{host} asks us to slow down ({words})"),
            ),
            Fault::Down => (
                Reason::EntraUnavailable,
                format!("{host} answered {}: {words}{advice}", error.status()),
            ),
            Fault::NoFederatedCredential => (
                Reason::FederatedCredentialNotFound,
                format!("Entra knows no federated credential for {self}: {words}{advice}"),
            ),
            Fault::Refused => (
                Reason::EntraRefused,
                format!("Entra refused {self}: {words}{advice}"),
            ),
        };
        let problem = Problem::new(reason, message).retry_after(error.retry_after());
        match error.fault() {
            Fault::Unreachable(_) => problem.unreachable(),
            _ => problem,
        }
    }

    /// What a person can do about this code.
    fn advice(&self, code: u32) -> Option<String> {
        let (client_id, (tenant, _)) = (self.client_id(), self.tenant());
        let advice = match code {
            70021 | 70025 | 700_211 | 700_213 => format!(
                "{}; a new one takes a few minutes to spread",
                self.federated_credential("create")?
            ),
            700_212 | 7_002_138 => self.federated_credential("update")?,
            700_016 => format!(
                "{} (az ad sp show --id {client_id} tells whether the tenant has it)",
                self.set_client_id()
            ),
            7_000_112 => {
                format!("enable the application: az ad sp update --id {client_id} --set accountEnabled=true")
            }
            7_000_215 | 7_000_222 => self.set_client_secret()?,
            90_002 => format!(
                "{} (az account show --query tenantId tells yours)",
                self.set_tenant_id()
            ),
            700_024 => {
                "compare the clock of the cluster's control plane with the time: date --utc".to_owned()
            }
            50_027 | 700_027 | 7_000_272 => format!(
                "Entra checks the assertion by the keys that the issuer publishes, and these must be the cluster's: \
                 compare kubectl get --raw /openid/v1/jwks with the jwks_uri of {}",
                self.discovery()?
            ),
            90_061 => {
                let Asker::Workload { issuer, .. } = self else {
                    return None;
                };
                format!(
                    "Entra must be able to fetch {0}{1} from the internet: curl {0}",
                    self.discovery()?,
                    reachable(issuer)
                )
            }
            500_011 | 500_014 => format!(
                "tenant {tenant} has no working service for the audience {}: set the webhook's --acr-audience to \
                 what the registries of this cloud take",
                self.cloud().acr_audience
            ),
            53_003 => format!(
                "ask the administrator of tenant {tenant} to except client id {client_id} from the policy"
            ),
            90_014 | 900_144 => "this is a mistake of the webhook's: please report it".to_owned(),
            _ => return None,
        };
        Some(advice)
    }

    /// The lines that create or update the federated credential that this asker needs.
    fn federated_credential(&self, verb: &str) -> Option<String> {
        let Asker::Workload { identity, issuer } = self else {
            return None;
        };
        let audience = identity.audiences.first()?;
        let (subject, client_id) = (identity.subject(), &identity.client_id);
        let which = match verb {
            "create" => "",
            _ => " --federated-credential-id NAME",
        };
        let unreachable = reachable(issuer);
        Some(format!(
            "its issuer must be {issuer}{unreachable}, its subject {subject}, its audience {audience}: \
             az identity federated-credential {verb} --name NAME --identity-name IDENTITY --resource-group GROUP \
             --issuer {issuer} --subject {subject} --audiences {audience} (az identity list --query \"[?clientId=='{client_id}']\" \
             tells IDENTITY and GROUP), or for an app registration: az ad app federated-credential {verb} --id {client_id}{which} \
             --parameters '{{\"name\":\"NAME\",\"issuer\":\"{issuer}\",\"subject\":\"{subject}\",\"audiences\":[\"{audience}\"]}}'"
        ))
    }

    fn set_client_id(&self) -> String {
        match self {
            Asker::Workload { identity, .. } => format!(
                "correct the client id: kubectl annotate serviceaccount --overwrite --namespace {} {} {}=CLIENT_ID",
                identity.namespace, identity.service_account, identity.client_id_annotation
            ),
            Asker::Principal { principal, .. } => {
                let key = &principal.client_id;
                format!("correct {key}: {}", patch_secret(key, "CLIENT_ID"))
            }
        }
    }

    fn set_tenant_id(&self) -> String {
        match (self.tenant().1, self) {
            (TenantFrom::Annotation(key), Asker::Workload { identity, .. }) => format!(
                "correct the tenant id: kubectl annotate serviceaccount --overwrite --namespace {} {} {key}=TENANT_ID",
                identity.namespace, identity.service_account
            ),
            (TenantFrom::Generator { command }, _) => format!("correct the tenant id: {command}"),
            _ => "correct the webhook's --tenant-id, which is AZURE_TENANT_ID in its environment".to_owned(),
        }
    }

    fn set_client_secret(&self) -> Option<String> {
        let Asker::Principal { principal, client_id } = self else {
            return None;
        };
        let key = &principal.client_secret;
        Some(format!(
            "{key} must hold the value of a client secret, not its id: make one by az ad app credential reset --append \
             --id {client_id}, and set it: {}",
            patch_secret(key, "PASSWORD")
        ))
    }

    fn discovery(&self) -> Option<String> {
        match self {
            Asker::Workload { issuer, .. } => Some(format!(
                "{}/.well-known/openid-configuration",
                issuer.trim_end_matches('/')
            )),
            Asker::Principal { .. } => None,
        }
    }
}

impl fmt::Display for Asker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asker::Workload { identity, .. } => write!(
                f,
                "the identity of service account {}/{}",
                identity.namespace, identity.service_account
            )?,
            Asker::Principal { principal, .. } => {
                let key = &principal.client_secret;
                write!(
                    f,
                    "the service principal of Secret {}/{}",
                    key.namespace, key.name
                )?;
            }
        }
        write!(f, " (client id {}, tenant {})", self.client_id(), self.tenant().0)
    }
}

fn patch_secret(key: &SecretKey, value: &str) -> String {
    let SecretKey { namespace, name, key } = key;
    format!(
        "kubectl patch secret --namespace {namespace} {name} --patch '{{\"stringData\":{{\"{key}\":\"{value}\"}}}}'"
    )
}

/// What is to be said of an issuer that Entra cannot reach.
fn reachable(issuer: &str) -> &'static str {
    match is_private(issuer) {
        true => " (which Entra cannot reach: give the cluster a public issuer first)",
        false => "",
    }
}

/// Whether an issuer is the cluster's own address, as it is where nobody has set another one.
fn is_private(issuer: &str) -> bool {
    let host = issuer.trim_start_matches("https://");
    let host = host.split(['/', ':']).next().unwrap_or(host);
    host.starts_with("kubernetes.default.svc") || host == "localhost"
}

#[cfg(test)]
mod tests;
