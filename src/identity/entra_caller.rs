//! Explains Entra's refusals: which identity was refused, why, and the command that fixes it.
//! Source of the codes: <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.

use super::{
    AssertionOrigin, CloudEndpoints, SecretKey, ServicePrincipal, TenantIdSource, WorkloadIdentity,
    aadsts::{self, Meaning},
    cause_of,
    entra_error::{EntraError, EntraErrorKind},
};
use crate::{
    problem::{Advice, Problem, Reason},
    reference::SpecField,
};
use std::fmt;

/// What is requested from Entra, in messages.
const HOP: &str = "the Entra token";

/// The identity that called Entra, with everything that the explanation of a refusal needs.
pub enum EntraCaller<'a> {
    /// A service account.
    Workload {
        /// The service account and its Entra application.
        identity: &'a WorkloadIdentity,
        /// The issuer of the assertion, and its time.
        origin: AssertionOrigin,
    },
    /// A service principal.
    Principal {
        /// The Secrets that hold its client id and client secret.
        principal: &'a ServicePrincipal,
        /// The client id that was read from its Secret.
        client_id: String,
    },
}

impl EntraCaller<'_> {
    /// The client id of the Entra application.
    pub fn client_id(&self) -> &str {
        match self {
            EntraCaller::Workload { identity, .. } => &identity.client_id,
            EntraCaller::Principal { client_id, .. } => client_id,
        }
    }

    /// The tenant id of the Entra application.
    pub fn tenant_id(&self) -> &str {
        self.tenant().0
    }

    /// The cloud whose Entra was called.
    pub fn cloud(&self) -> &CloudEndpoints {
        match self {
            EntraCaller::Workload { identity, .. } => &identity.cloud,
            EntraCaller::Principal { principal, .. } => &principal.cloud,
        }
    }

    fn tenant(&self) -> (&str, &TenantIdSource) {
        match self {
            EntraCaller::Workload { identity, .. } => (&identity.tenant_id, &identity.tenant_id_source.0),
            EntraCaller::Principal { principal, .. } => (&principal.tenant_id, &principal.tenant_id_source.0),
        }
    }

    /// Describes the [`EntraError`] of our transport that azure_identity's error wraps.
    pub fn problem(&self, error: &azure_core::Error) -> Problem {
        if let Some(error) = cause_of::<EntraError>(error) {
            return self.problem_of(error);
        }
        // azure_identity did not send the request at all, for example because the tenant id is malformed.
        Problem::new(Reason::EntraRefused, format!("{self} cannot be used")).quoting(&error.to_string())
    }

    fn problem_of(&self, error: &EntraError) -> Problem {
        let host = &self.cloud().authority_host;
        let status = error.status();
        let problem = match error.kind() {
            EntraErrorKind::Unreachable(cause) => cause.problem(HOP, host, Reason::EntraUnavailable),
            EntraErrorKind::UnexpectedBody => Problem::new(
                Reason::EntraUnavailable,
                format!(
                    "{host} returned HTTP {status} with an unexpected body: a proxy or firewall may have answered"
                ),
            ),
            EntraErrorKind::Throttled => {
                let fact = format!("{host} is throttling requests");
                Problem::new(Reason::EntraThrottled, fact).quoting(error.description())
            }
            EntraErrorKind::Unavailable => {
                let fact = format!("{host} returned HTTP {status}");
                self.advised(Reason::EntraUnavailable, fact, error)
            }
            EntraErrorKind::NoFederatedCredential => {
                let fact = format!("Entra refused {self}");
                self.advised(Reason::FederatedCredentialNotFound, fact, error)
            }
            EntraErrorKind::ClockSkewed => {
                let fact = format!("Entra refused {self} because of the time: {}", self.clock(error));
                Problem::new(Reason::ClockSkewed, fact).quoting(error.description())
            }
            EntraErrorKind::Refused => {
                self.advised(Reason::EntraRefused, format!("Entra refused {self}"), error)
            }
        };
        problem.retry_after(error.retry_after())
    }

    /// The problem of an error document. Advice replaces what the fact says, because it says the same more precisely.
    fn advised(&self, reason: Reason, fact: String, error: &EntraError) -> Problem {
        let Some(code) = error.code() else {
            return Problem::new(reason, fact).quoting(error.description());
        };
        match self.advice(code) {
            Some(Advice { hint, command }) => {
                let problem = Problem::new(reason, format!("AADSTS{code}: {hint}"));
                Problem { command, ..problem }.quoting(error.text())
            }
            None if reason == Reason::EntraRefused => Problem::new(
                reason,
                format!("{fact}; https://login.microsoftonline.com/error?code={code} explains AADSTS{code}"),
            )
            .quoting(error.text()),
            None => Problem::new(reason, fact).quoting(error.description()),
        }
    }

    /// What a person can do about this AADSTS code.
    fn advice(&self, code: u32) -> Option<Advice> {
        match aadsts::meaning(code) {
            Some(Meaning::NoFederatedCredential) => self.advice_on_credential(code),
            Some(Meaning::IssuerUnreachable) => self.advice_on_issuer(),
            _ => self.advice_on_refusal(code),
        }
    }

    /// The command that creates or updates the federated credential of this service account.
    fn advice_on_credential(&self, code: u32) -> Option<Advice> {
        let EntraCaller::Workload { identity, origin } = self else {
            return None;
        };
        // A credential with another audience, or with a subject in another case, exists already.
        let verb = match code {
            700_212 | 7_002_138 => "update",
            _ => "create",
        };
        let issuer = &origin.issuer;
        let hint = if is_private_issuer(issuer) {
            format!(
                "Entra cannot reach the issuer {issuer}: give the cluster a public one, then a federated credential"
            )
        } else {
            format!(
                "client id {} has no federated credential for {self}",
                identity.client_id
            )
        };
        Some(Advice::new(hint).command(federated_credential_command(verb, identity, issuer)?))
    }

    fn advice_on_issuer(&self) -> Option<Advice> {
        let EntraCaller::Workload { origin, .. } = self else {
            return None;
        };
        let note = match is_private_issuer(&origin.issuer) {
            true => ": give the cluster a public issuer",
            false => " from the internet",
        };
        let hint = format!("Entra cannot reach the issuer {}{note}", origin.issuer);
        Some(Advice::new(hint).command(format!("curl {}", self.discovery()?)))
    }

    fn advice_on_refusal(&self, code: u32) -> Option<Advice> {
        let (client_id, tenant) = (self.client_id(), self.tenant_id());
        Some(match code {
            700_016 => Advice::new(format!(
                "tenant {tenant} has no application {client_id}, which {self} names"
            ))
            .command(self.set_client_id()),
            7_000_229 => Advice::new(format!(
                "tenant {tenant} has no service principal for application {client_id}"
            ))
            .command(format!("az ad sp create --id {client_id}")),
            7_000_112 => Advice::new(format!("application {client_id} is disabled in tenant {tenant}"))
                .command(format!(
                    "az ad sp update --id {client_id} --set accountEnabled=true"
                )),
            7_000_215 | 7_000_222 => self.advice_on_client_secret()?,
            90_002 => self.advice_on_tenant_id(),
            50_027 | 700_027 | 7_000_272 => Advice::new(
                "the issuer publishes other keys than those with which the cluster signs; compare them",
            )
            .command(format!(
                "kubectl get --raw /openid/v1/jwks; curl {}",
                self.discovery()?
            )),
            500_011 | 500_014 => Advice::new(format!(
                "tenant {tenant} has no audience {}: set the webhook's --acr-audience to the audience of the registries",
                self.cloud().acr_audience
            )),
            53_003 => Advice::new(format!(
                "ask the administrator of tenant {tenant} to exclude client id {client_id} from the Conditional Access policy"
            )),
            90_014 | 900_144 => Advice::new("this is a bug in acr-pull-webhook: please report it"),
            _ => return None,
        })
    }

    fn advice_on_tenant_id(&self) -> Advice {
        let tenant = self.tenant_id();
        let wrong =
            |place: &dyn fmt::Display| Advice::new(format!("Entra has no tenant {tenant}: correct {place}"));
        match (self.tenant().1, self) {
            (TenantIdSource::Annotation(key), EntraCaller::Workload { identity, .. }) => {
                let command = annotate(identity, key, "TENANT_ID");
                wrong(&format_args!("annotation {key} of {self}")).command(command)
            }
            (TenantIdSource::Generator(reference, namespace), _) => {
                wrong(&format_args!("spec.tenantId of {reference}"))
                    .command(reference.patch_command(namespace, SpecField::TenantId))
            }
            _ => wrong(&"the webhook's --tenant-id (azure.tenantId of the chart)"),
        }
    }

    fn advice_on_client_secret(&self) -> Option<Advice> {
        let EntraCaller::Principal { principal, client_id } = self else {
            return None;
        };
        let key = &principal.client_secret;
        let hint =
            format!("{key} must hold the value of a client secret of client id {client_id}, not its id");
        Some(Advice::new(hint).command(patch_secret(key, "PASSWORD")))
    }

    fn set_client_id(&self) -> String {
        match self {
            EntraCaller::Workload { identity, .. } => {
                annotate(identity, identity.client_id_annotation.0, "CLIENT_ID")
            }
            EntraCaller::Principal { principal, .. } => patch_secret(&principal.client_id, "CLIENT_ID"),
        }
    }

    /// How far the clock of the API server, which sets the times of an assertion, differs from Entra's.
    fn clock(&self, error: &EntraError) -> String {
        let ahead = match self {
            EntraCaller::Workload { origin, .. } => origin.issued_at.and_then(|time| error.clock_ahead(time)),
            EntraCaller::Principal { .. } => None,
        };
        match ahead.map(|ahead| ahead.as_secs()) {
            None => "synchronize the clock of the API server".to_owned(),
            Some(seconds @ ..0) => format!(
                "the API server's clock is {} s behind Entra's; synchronize it",
                seconds.unsigned_abs()
            ),
            Some(seconds) => {
                format!("the API server's clock is {seconds} s ahead of Entra's; synchronize it")
            }
        }
    }

    /// The URL of the issuer's OpenID discovery document.
    fn discovery(&self) -> Option<String> {
        match self {
            EntraCaller::Workload { origin, .. } => Some(format!(
                "{}/.well-known/openid-configuration",
                origin.issuer.trim_end_matches('/')
            )),
            EntraCaller::Principal { .. } => None,
        }
    }
}

/// The object that configures the identity.
impl fmt::Display for EntraCaller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntraCaller::Workload { identity, .. } => write!(
                f,
                "service account {}/{}",
                identity.namespace, identity.service_account
            ),
            EntraCaller::Principal { principal, .. } => {
                let SecretKey { namespace, name, .. } = &principal.client_secret;
                write!(f, "the service principal of Secret {namespace}/{name}")
            }
        }
    }
}

/// The command that changes an annotation of the service account.
fn annotate(identity: &WorkloadIdentity, key: &str, value: &str) -> String {
    format!(
        "kubectl annotate serviceaccount --overwrite --namespace {} {} {key}={value}",
        identity.namespace, identity.service_account
    )
}

/// The command that creates or updates the federated credential for the assertions of an identity.
pub fn federated_credential_command(verb: &str, identity: &WorkloadIdentity, issuer: &str) -> Option<String> {
    Some(format!(
        "az identity federated-credential {verb} --name NAME --identity-name IDENTITY --resource-group GROUP --issuer \
         {issuer} --subject {} --audiences {}",
        identity.subject(),
        identity.audiences.first()?
    ))
}

fn patch_secret(key: &SecretKey, value: &str) -> String {
    let SecretKey { namespace, name, key } = key;
    format!(
        "kubectl patch secret --namespace {namespace} {name} --patch '{{\"stringData\":{{\"{key}\":\"{value}\"}}}}'"
    )
}

/// Whether the issuer is an address inside the cluster, which is the default if no other issuer is configured.
pub fn is_private_issuer(issuer: &str) -> bool {
    let host = issuer.trim_start_matches("https://");
    let host = host.split(['/', ':']).next().unwrap_or(host);
    host.starts_with("kubernetes.default.svc") || host == "localhost"
}

#[cfg(test)]
mod tests;
