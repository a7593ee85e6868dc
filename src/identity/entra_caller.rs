//! Explains Entra's refusals: which identity was refused, why, and the command that fixes it.
//! Source of the codes: <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.

use super::{
    CloudEndpoints, SecretKey, ServicePrincipal, TenantIdSource, WorkloadIdentity,
    aadsts::{self, Meaning},
    cause_of,
    entra_error::{EntraError, EntraErrorKind},
};
use crate::{
    names::NamespaceName,
    problem::{Problem, Reason},
    reference::{Kind, Reference},
    untrusted::UntrustedText,
};
use std::fmt;

/// The identity that called Entra, with everything that the explanation of a refusal needs.
pub enum EntraCaller<'a> {
    /// A service account.
    Workload {
        /// The service account and its Entra application.
        identity: &'a WorkloadIdentity,
        /// The issuer of the assertion.
        issuer: String,
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
        Problem::new(
            Reason::EntraRefused,
            format!(
                "{self} cannot be used: {}",
                UntrustedText::new(&error.to_string())
            ),
        )
    }

    fn problem_of(&self, error: &EntraError) -> Problem {
        let host = &self.cloud().authority_host;
        let status = error.status();
        let remediation = error.code().and_then(|code| self.remediation(code));
        // The description may contain the name of a tenant, which somebody else chose, and the remediation is a command
        // to paste.
        let description = match remediation {
            Some(_) => UntrustedText::inert(error.description()),
            None => UntrustedText::new(error.description()),
        };
        let remediation = remediation.map(|text| format!("; {text}")).unwrap_or_default();
        let (reason, message) = match error.kind() {
            EntraErrorKind::Unreachable(cause) => (
                Reason::EntraUnavailable,
                format!("{host} could not be reached: {}", UntrustedText::new(cause)),
            ),
            EntraErrorKind::UnexpectedBody => (
                Reason::EntraUnavailable,
                format!(
                    "{host} returned HTTP {status} with an unexpected body; a proxy or firewall may have answered"
                ),
            ),
            EntraErrorKind::Throttled => (
                Reason::EntraThrottled,
                format!("{host} is throttling requests ({description})"),
            ),
            EntraErrorKind::Unavailable => (
                Reason::EntraUnavailable,
                format!("{host} returned HTTP {status}: {description}{remediation}"),
            ),
            EntraErrorKind::NoFederatedCredential => (
                Reason::FederatedCredentialNotFound,
                format!(
                    "Entra found no matching federated credential for {self}: {description}{remediation}"
                ),
            ),
            EntraErrorKind::Refused => (
                Reason::EntraRefused,
                format!("Entra refused {self}: {description}{remediation}"),
            ),
        };
        let problem = Problem::new(reason, message).retry_after(error.retry_after());
        match error.kind() {
            EntraErrorKind::Unreachable(_) => problem.unreachable(),
            _ => problem,
        }
    }

    /// What a person can do about this AADSTS code.
    fn remediation(&self, code: u32) -> Option<String> {
        match aadsts::meaning(code) {
            Some(Meaning::NoFederatedCredential) => self.remediation_of_credential(code),
            Some(Meaning::IssuerUnreachable) => self.remediation_of_issuer(),
            _ => self.remediation_of_refusal(code),
        }
    }

    fn remediation_of_credential(&self, code: u32) -> Option<String> {
        // A credential with another audience, or with a subject in another case, exists already.
        let verb = match code {
            700_212 | 7_002_138 => "update",
            _ => "create",
        };
        Some(format!(
            "{}; a new or changed federated credential takes effect after a few minutes",
            self.federated_credential(verb)?
        ))
    }

    fn remediation_of_issuer(&self) -> Option<String> {
        let EntraCaller::Workload { issuer, .. } = self else {
            return None;
        };
        Some(format!(
            "Entra must be able to fetch {0}{1} from the internet: curl {0}",
            self.discovery()?,
            note_if_private(issuer)
        ))
    }

    fn remediation_of_refusal(&self, code: u32) -> Option<String> {
        let (client_id, tenant) = (self.client_id(), self.tenant_id());
        let text = match code {
            700_016 => format!(
                "{} (check whether the tenant has the application: az ad sp show --id {client_id})",
                self.set_client_id()
            ),
            7_000_229 => format!(
                "tenant {tenant} has no service principal for the application: az ad sp create --id {client_id}"
            ),
            7_000_112 => {
                format!("enable the application: az ad sp update --id {client_id} --set accountEnabled=true")
            }
            7_000_215 | 7_000_222 => self.set_client_secret()?,
            90_002 => format!(
                "{} (find your tenant id: az account show --query tenantId)",
                self.set_tenant_id()
            ),
            700_024 => "compare the clock of the cluster's control plane with the current time: date --utc"
                .to_owned(),
            50_027 | 700_027 | 7_000_272 => format!(
                "Entra verifies the assertion with the keys that the issuer publishes, which must be the cluster's keys: \
                 compare kubectl get --raw /openid/v1/jwks with the jwks_uri of {}",
                self.discovery()?
            ),
            500_011 | 500_014 => format!(
                "tenant {tenant} has no enabled service principal for the audience {}: set the webhook's --acr-audience to \
                 the audience that the registries of this cloud accept",
                self.cloud().acr_audience
            ),
            53_003 => format!(
                "ask the administrator of tenant {tenant} to exclude client id {client_id} from the Conditional Access policy"
            ),
            90_014 | 900_144 => "this is a bug in acr-pull-webhook: please report it".to_owned(),
            _ => return None,
        };
        Some(text)
    }

    /// The commands that create or update the federated credential of this service account.
    fn federated_credential(&self, verb: &str) -> Option<String> {
        let EntraCaller::Workload { identity, issuer } = self else {
            return None;
        };
        let audience = identity.audiences.first()?;
        let (subject, client_id) = (identity.subject(), &identity.client_id);
        let credential_id = match verb {
            "create" => "",
            _ => " --federated-credential-id NAME",
        };
        let note = note_if_private(issuer);
        Some(format!(
            "the federated credential must have the issuer {issuer}{note}, the subject {subject} and the audience {audience}: \
             az identity federated-credential {verb} --name NAME --identity-name IDENTITY --resource-group GROUP \
             --issuer {issuer} --subject {subject} --audiences {audience} (find IDENTITY and GROUP: \
             az identity list --query \"[?clientId=='{client_id}']\"), or for an app registration: \
             az ad app federated-credential {verb} --id {client_id}{credential_id} \
             --parameters '{{\"name\":\"NAME\",\"issuer\":\"{issuer}\",\"subject\":\"{subject}\",\"audiences\":[\"{audience}\"]}}'"
        ))
    }

    fn set_client_id(&self) -> String {
        match self {
            EntraCaller::Workload { identity, .. } => format!(
                "correct the client id: kubectl annotate serviceaccount --overwrite --namespace {} {} {}=CLIENT_ID",
                identity.namespace, identity.service_account, identity.client_id_annotation.0
            ),
            EntraCaller::Principal { principal, .. } => {
                let key = &principal.client_id;
                format!("correct {key}: {}", patch_secret(key, "CLIENT_ID"))
            }
        }
    }

    fn set_tenant_id(&self) -> String {
        match (self.tenant().1, self) {
            (TenantIdSource::Annotation(key), EntraCaller::Workload { identity, .. }) => format!(
                "correct the tenant id: kubectl annotate serviceaccount --overwrite --namespace {} {} {key}=TENANT_ID",
                identity.namespace, identity.service_account
            ),
            (TenantIdSource::Generator(reference, namespace), _) => {
                format!("correct the tenant id: {}", patch_tenant_id(reference, namespace))
            }
            _ => "correct the webhook's --tenant-id flag (AZURE_TENANT_ID in its environment)".to_owned(),
        }
    }

    fn set_client_secret(&self) -> Option<String> {
        let EntraCaller::Principal { principal, client_id } = self else {
            return None;
        };
        let key = &principal.client_secret;
        Some(format!(
            "{key} must hold the value of a client secret, not its id: create one with az ad app credential reset --append \
             --id {client_id}, and store it: {}",
            patch_secret(key, "PASSWORD")
        ))
    }

    /// The URL of the issuer's OpenID discovery document.
    fn discovery(&self) -> Option<String> {
        match self {
            EntraCaller::Workload { issuer, .. } => Some(format!(
                "{}/.well-known/openid-configuration",
                issuer.trim_end_matches('/')
            )),
            EntraCaller::Principal { .. } => None,
        }
    }
}

impl fmt::Display for EntraCaller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntraCaller::Workload { identity, .. } => write!(
                f,
                "the identity of service account {}/{}",
                identity.namespace, identity.service_account
            )?,
            EntraCaller::Principal { principal, .. } => {
                let key = &principal.client_secret;
                write!(
                    f,
                    "the service principal of Secret {}/{}",
                    key.namespace, key.name
                )?;
            }
        }
        write!(
            f,
            " (client id {}, tenant {})",
            self.client_id(),
            self.tenant_id()
        )
    }
}

/// The command that changes the tenant id of a generator.
fn patch_tenant_id(Reference { kind, name }: &Reference, namespace: &NamespaceName) -> String {
    let field = r#""tenantId":"TENANT_ID""#;
    match kind {
        Kind::AccessToken => format!(
            "kubectl patch acraccesstoken {name} --namespace {namespace} --type merge --patch '{{\"spec\":{{{field}}}}}'"
        ),
        Kind::ClusterGenerator => format!(
            "kubectl patch clustergenerator {name} --type merge --patch \
             '{{\"spec\":{{\"generator\":{{\"acrAccessTokenSpec\":{{{field}}}}}}}}}'"
        ),
    }
}

fn patch_secret(key: &SecretKey, value: &str) -> String {
    let SecretKey { namespace, name, key } = key;
    format!(
        "kubectl patch secret --namespace {namespace} {name} --patch '{{\"stringData\":{{\"{key}\":\"{value}\"}}}}'"
    )
}

/// A note that follows an issuer which Entra cannot reach.
fn note_if_private(issuer: &str) -> &'static str {
    if is_private(issuer) {
        " (which Entra cannot reach: give the cluster a public issuer first)"
    } else {
        ""
    }
}

/// Whether the issuer is an address inside the cluster, which is the default if no other issuer is configured.
fn is_private(issuer: &str) -> bool {
    let host = issuer.trim_start_matches("https://");
    let host = host.split(['/', ':']).next().unwrap_or(host);
    host.starts_with("kubernetes.default.svc") || host == "localhost"
}

#[cfg(test)]
mod tests;
