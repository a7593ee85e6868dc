//! A workload identity: a service account whose annotations name an Entra application.

use super::{
    GeneratorInNamespace, MAX_SHOWN_BYTES, ResolveRules, ServiceAccount, ServiceAccountAnnotations,
    WorkloadIdentityAuth,
    application::{check_client_id, check_tenant_id, trimmed},
};
use crate::{
    generator::{
        access_token::{MAX_AUDIENCE_LENGTH, MAX_AUDIENCES},
        namespaces::{self, ALLOWED_NAMESPACES},
    },
    identity::{CloudEndpoints, ForMessages, TenantIdSource, WorkloadIdentity},
    names::{NamespacedName, ObjectName},
    problem::{Problem, Reason},
    untrusted::UntrustedText,
};

/// The annotations of a service account that set the client id: the annotation of the kubelet credential provider takes
/// precedence over that of azure-workload-identity.
const CLIENT_ID_ANNOTATIONS: [&str; 2] = [
    "kubernetes.azure.com/acr-client-id",
    "azure.workload.identity/client-id",
];
/// The annotations of a service account that set the tenant id, in the same order.
const TENANT_ID_ANNOTATIONS: [&str; 2] = [
    "kubernetes.azure.com/acr-tenant-id",
    "azure.workload.identity/tenant-id",
];

/// All annotations of a service account that are read.
pub const SERVICE_ACCOUNT_ANNOTATIONS: &[&str] = &[
    CLIENT_ID_ANNOTATIONS[0],
    CLIENT_ID_ANNOTATIONS[1],
    TENANT_ID_ANNOTATIONS[0],
    TENANT_ID_ANNOTATIONS[1],
    ALLOWED_NAMESPACES,
];

impl ResolveRules {
    pub(super) fn workload_identity(
        &self,
        generator: GeneratorInNamespace<'_>,
        auth: &WorkloadIdentityAuth,
        account: &ServiceAccount,
        annotations: &ServiceAccountAnnotations,
        cloud: CloudEndpoints,
    ) -> Result<WorkloadIdentity, Problem> {
        let is_default =
            matches!(account, ServiceAccount::OfPod(name) if *name == ObjectName::default_service_account());
        let account = account
            .namespaced_name(generator.namespace)
            .ok_or_else(|| generator.invalid("has no service account"))?;
        check_allowed(generator, &account, annotations)?;
        let first_annotation = |keys: [&'static str; 2]| {
            keys.into_iter()
                .filter_map(|key| Some((trimmed(annotations.get(key)?), key)))
                .find(|(value, _)| !value.is_empty())
        };
        let (client_id, client_id_annotation) =
            first_annotation(CLIENT_ID_ANNOTATIONS).ok_or_else(|| client_id_missing(&account, is_default))?;
        let (tenant_id, tenant_id_source) = first_annotation(TENANT_ID_ANNOTATIONS)
            .map(|(id, key)| (id, TenantIdSource::Annotation(key)))
            .or_else(|| self.tenant_id(generator))
            .ok_or_else(|| {
                Problem::new(
                    Reason::TenantIdMissing,
                    format!(
                        "no tenant id is configured for service account {account}: annotate it, or set spec.tenantId of the \
                         generator or --tenant-id of the webhook"
                    ),
                )
                .command(format!(
                    "kubectl annotate serviceaccount --namespace {} {} {}=TENANT_ID",
                    account.namespace, account.name, TENANT_ID_ANNOTATIONS[1]
                ))
            })?;
        let annotation = |key| format!("annotation {key} of service account {account}");
        check_client_id(client_id, &annotation(client_id_annotation))?;
        let tenant_id_location = match &tenant_id_source {
            TenantIdSource::Annotation(key) => annotation(key),
            source => generator.tenant_id_location(source),
        };
        check_tenant_id(tenant_id, &tenant_id_location)?;
        Ok(WorkloadIdentity {
            namespace: account.namespace,
            service_account: account.name,
            client_id: client_id.to_owned(),
            client_id_annotation: ForMessages(client_id_annotation),
            tenant_id: tenant_id.to_owned(),
            tenant_id_source: ForMessages(tenant_id_source),
            audiences: self.audiences(generator, auth)?,
            cloud,
        })
    }

    /// The default audience, and then the audiences that the generator adds, as in External Secrets Operator.
    fn audiences(
        &self,
        generator: GeneratorInNamespace<'_>,
        auth: &WorkloadIdentityAuth,
    ) -> Result<Vec<String>, Problem> {
        let mut audiences: Vec<String> = self.token_audiences.first().cloned().into_iter().collect();
        let requested = auth.service_account_ref.as_ref();
        let requested = requested.map(|r| r.audiences.as_slice()).unwrap_or_default();
        if requested.len() > MAX_AUDIENCES
            || requested
                .iter()
                .any(|audience| audience.len() > MAX_AUDIENCE_LENGTH)
        {
            return Err(generator.invalid(&format!(
                "requests more than {MAX_AUDIENCES} serviceAccountRef.audiences, or one longer than {MAX_AUDIENCE_LENGTH} \
                 bytes: remove what is not needed"
            )));
        }
        for audience in requested {
            if !self.token_audiences.contains(audience) {
                let audience = UntrustedText::quoted(audience).at_most(MAX_SHOWN_BYTES);
                let invalid = generator.invalid(&format!(
                    "requests the audience {audience} in serviceAccountRef.audiences, which --token-audiences does not permit"
                ));
                return Err(invalid.quoting(&self.token_audiences.join(", ")));
            }
            if !audiences.contains(audience) {
                audiences.push(audience.clone());
            }
        }
        Ok(audiences)
    }
}

/// The refusal of a service account without a client id. Every Pod that sets no service account uses `default`, so a
/// client id on it would give the identity to all of them.
fn client_id_missing(account: &NamespacedName, is_default_of_pod: bool) -> Problem {
    let NamespacedName { namespace, name } = account;
    let annotation = CLIENT_ID_ANNOTATIONS[1];
    let problem = |advice: &str| {
        let fact = format!("service account {account} has no annotation {annotation}: {advice}");
        Problem::new(Reason::ClientIdMissing, fact)
    };
    if is_default_of_pod {
        return problem("set spec.serviceAccountName of the Pod to an account of its own that has it");
    }
    problem("set it to the client id of its Entra application").command(format!(
        "kubectl annotate serviceaccount --namespace {namespace} {name} {annotation}=CLIENT_ID"
    ))
}

/// Checks that a service account of another namespace allows its use by Pods of the Pod's namespace.
fn check_allowed(
    generator: GeneratorInNamespace<'_>,
    account: &NamespacedName,
    annotations: &ServiceAccountAnnotations,
) -> Result<(), Problem> {
    let NamespacedName { namespace, name } = account;
    if namespace == generator.namespace {
        return Ok(());
    }
    let list = annotations
        .get(ALLOWED_NAMESPACES)
        .map(String::as_str)
        .unwrap_or_default();
    let annotate_command =
        format_args!("kubectl annotate serviceaccount --overwrite --namespace {namespace} {name}");
    namespaces::check_allowed(list, generator.namespace, annotate_command).map_err(|advice| {
        let fact = format!(
            "{} uses service account {account}, which {}",
            generator.reference, advice.hint
        );
        Problem {
            command: advice.command,
            ..Problem::new(Reason::CrossNamespaceNotAllowed, fact)
        }
    })
}
