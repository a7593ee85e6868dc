//! A workload identity: a service account, and what its annotations say of Entra.

use super::{
    Account, Referenced, Resolver, ServiceAccountView, WorkloadIdentityAuth,
    application::{check_client_id, check_tenant_id, trimmed},
};
use crate::{
    generator::{
        access_token::{MAX_AUDIENCE, MAX_AUDIENCES},
        namespaces::{self, ALLOWED_NAMESPACES},
    },
    identity::{CloudEndpoints, TenantIdSource, WorkloadIdentity},
    problem::{Problem, Reason},
    untrusted::UntrustedText,
};

/// The annotations that name a service account's application: the kubelet credential
/// provider's first, azure-workload-identity's second.
const CLIENT_ID: [&str; 2] = [
    "kubernetes.azure.com/acr-client-id",
    "azure.workload.identity/client-id",
];
const TENANT_ID: [&str; 2] = [
    "kubernetes.azure.com/acr-tenant-id",
    "azure.workload.identity/tenant-id",
];

/// All annotations of a service account that are read.
pub const ANNOTATIONS: &[&str] = &[
    CLIENT_ID[0],
    CLIENT_ID[1],
    TENANT_ID[0],
    TENANT_ID[1],
    ALLOWED_NAMESPACES,
];

impl Resolver {
    pub(super) fn workload(
        &self,
        generator: Referenced<'_>,
        auth: &WorkloadIdentityAuth,
        account: Account<'_>,
        annotations: &ServiceAccountView,
        cloud: CloudEndpoints,
    ) -> Result<WorkloadIdentity, Problem> {
        let (namespace, service_account) = account
            .service_account(generator.namespace)
            .ok_or_else(|| generator.invalid("names no service account"))?;
        check_allowed(generator, namespace, service_account, annotations)?;
        let annotated = |keys: [&'static str; 2]| {
            keys.into_iter()
                .filter_map(|key| Some((trimmed(annotations.get(key)?), key)))
                .find(|(value, _)| !value.is_empty())
        };
        let (client_id, client_id_annotation) = annotated(CLIENT_ID).ok_or_else(|| {
            Problem::new(
                Reason::ClientIdMissing,
                format!(
                    "service account {namespace}/{service_account} names no Entra application; annotate it: \
                     kubectl annotate serviceaccount --namespace {namespace} {service_account} {}=CLIENT_ID",
                    CLIENT_ID[1]
                ),
            )
        })?;
        let (tenant_id, tenant_id_source) = annotated(TENANT_ID)
            .map(|(id, key)| (id, TenantIdSource::Annotation(key)))
            .or_else(|| self.tenant(generator))
            .ok_or_else(|| {
                Problem::new(
                    Reason::TenantIdMissing,
                    format!(
                        "nothing names the Entra tenant of service account {namespace}/{service_account}; annotate it with \
                         {}, or set spec.tenantId in {}, or --tenant-id on the webhook",
                        TENANT_ID[1], generator.reference
                    ),
                )
            })?;
        let annotation = |key| format!("annotation {key} of service account {namespace}/{service_account}");
        check_client_id(client_id, &annotation(client_id_annotation))?;
        let tenant_place = match &tenant_id_source {
            TenantIdSource::Annotation(key) => annotation(key),
            from => generator.tenant_place(from),
        };
        check_tenant_id(tenant_id, &tenant_place)?;
        Ok(WorkloadIdentity {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            client_id: client_id.to_owned(),
            client_id_annotation,
            tenant_id: tenant_id.to_owned(),
            tenant_id_source,
            audiences: self.audiences(generator, auth)?,
            cloud,
        })
    }

    /// The default audience, and those the generator adds, as External Secrets Operator does.
    fn audiences(
        &self,
        generator: Referenced<'_>,
        auth: &WorkloadIdentityAuth,
    ) -> Result<Vec<String>, Problem> {
        let mut audiences: Vec<String> = self.token_audiences.first().cloned().into_iter().collect();
        let asked = auth.service_account_ref.as_ref();
        let asked = asked.map(|r| r.audiences.as_slice()).unwrap_or_default();
        if asked.len() > MAX_AUDIENCES || asked.iter().any(|audience| audience.len() > MAX_AUDIENCE) {
            return Err(generator.invalid(&format!(
                "asks for more than {MAX_AUDIENCES} audiences in serviceAccountRef.audiences, or for one longer than \
                 {MAX_AUDIENCE} bytes; remove what is not needed"
            )));
        }
        for audience in asked {
            if !self.token_audiences.contains(audience) {
                let audience = UntrustedText::quoted(audience);
                return Err(generator.invalid(&format!(
                    "asks for the audience {audience} in serviceAccountRef.audiences, and only those of \
                     --token-audiences are permitted ({}): remove it",
                    self.token_audiences.join(", ")
                )));
            }
            if !audiences.contains(audience) {
                audiences.push(audience.clone());
            }
        }
        Ok(audiences)
    }
}

/// A service account of another namespace must have agreed to be used from the Pod's.
fn check_allowed(
    generator: Referenced<'_>,
    namespace: &str,
    service_account: &str,
    annotations: &ServiceAccountView,
) -> Result<(), Problem> {
    if namespace == generator.namespace {
        return Ok(());
    }
    let list = annotations
        .get(ALLOWED_NAMESPACES)
        .map(String::as_str)
        .unwrap_or_default();
    let annotate =
        format_args!("kubectl annotate serviceaccount --overwrite --namespace {namespace} {service_account}");
    namespaces::check_allowed(list, generator.namespace, annotate).map_err(|why| {
        Problem::new(
            Reason::CrossNamespaceNotAllowed,
            format!(
                "{} uses service account {namespace}/{service_account}, which {why}",
                generator.reference
            ),
        )
    })
}
