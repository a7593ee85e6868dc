//! What a pull secret is made from, and the token that goes into it.

use super::{
    ACRPullSecretSpec, AccountOf, GeneratorReference, PullSecretRequest, StoredKind, WatchedPullSecret, name,
};
use crate::{
    generator::{ServiceAccount, TokenInputs},
    names::{NamespaceName, NamespacedName, ObjectName},
    problem::Problem,
    reference::SpecField,
    registry::PullToken,
};
use kube::runtime::reflector::ObjectRef;
use serde_json::value::RawValue;
use std::sync::{Arc, OnceLock};

/// A resolved request: the pull secret that a Pod needs.
#[derive(Clone, Debug)]
pub struct PullSecretPlan {
    /// The request, by which the plan can be made again.
    pub request: PullSecretRequest,
    /// The namespace and the name of the `ACRPullSecret` and of the Secret. The namespace is that of the Pod.
    key: NamespacedName,
    /// The same names as the watch uses them. A warm admission must not build them again.
    object_ref: ObjectRef<WatchedPullSecret>,
    /// The encoded patch that adds this pull secret alone to a Pod of the usual shape.
    usual_patch: OnceLock<Arc<RawValue>>,
    /// Everything that the token depends on.
    pub inputs: TokenInputs,
    /// The fingerprint of `inputs`.
    pub inputs_hash: String,
    /// Whose service account the token is made for, where it is made for one.
    pub account_of: Option<AccountOf>,
}

/// A token for a pull secret, and the application that it was issued to.
pub struct IssuedToken {
    /// The token.
    pub token: PullToken,
    /// The Entra application (client) id, where it is known.
    pub client_id: Option<String>,
    /// Why the registry refused the tokens before this one, if it probably refuses this one too.
    pub refusal: Option<Problem>,
}

impl PullSecretPlan {
    /// The plan for this request.
    pub fn new(request: &PullSecretRequest, account: &ServiceAccount, inputs: TokenInputs) -> Self {
        let key = NamespacedName {
            namespace: request.namespace().clone(),
            name: name(request.reference(), account),
        };
        Self {
            object_ref: key.reference(),
            usual_patch: OnceLock::new(),
            key,
            request: request.clone(),
            inputs_hash: inputs.fingerprint(),
            inputs,
            account_of: match account {
                ServiceAccount::OfPod(_) => Some(AccountOf::Pod),
                ServiceAccount::Named(_) => Some(AccountOf::Generator),
                ServiceAccount::NotNeeded => None,
            },
        }
    }

    /// The namespace and the name of the `ACRPullSecret` and of the Secret.
    pub fn key(&self) -> &NamespacedName {
        &self.key
    }

    /// The reference by which the watch finds the `ACRPullSecret`.
    pub fn object_ref(&self) -> &ObjectRef<WatchedPullSecret> {
        &self.object_ref
    }

    /// The encoded patch that adds this pull secret alone to a Pod of the usual shape, once an admission has built it.
    pub fn usual_patch(&self) -> &OnceLock<Arc<RawValue>> {
        &self.usual_patch
    }

    /// The namespace of the Pod, of the `ACRPullSecret` and of the Secret.
    pub fn namespace(&self) -> &NamespaceName {
        &self.key.namespace
    }

    /// The name of the `ACRPullSecret` and of the Secret.
    pub fn name(&self) -> &ObjectName {
        &self.key.name
    }

    /// The plan for the pull secret of this name. Pods refer to the existing name, even if the generator would now
    /// produce another one.
    pub fn named(mut self: Arc<Self>, name: &ObjectName) -> Arc<Self> {
        if self.name() != name {
            let plan = Arc::make_mut(&mut self);
            plan.key = plan.key.sibling(name);
            plan.object_ref = plan.key.reference();
            plan.usual_patch = OnceLock::new();
        }
        self
    }

    /// The generator, as the `ACRPullSecret` names it.
    pub fn generator(&self) -> GeneratorReference {
        let reference = self.request.reference();
        GeneratorReference {
            kind: StoredKind::Known(reference.kind),
            name: reference.name.to_string(),
        }
    }

    /// The command that corrects the generator's `scope`.
    pub fn patch_scope_command(&self) -> String {
        let reference = self.request.reference();
        reference.patch_command(self.namespace(), SpecField::Scope)
    }

    /// The spec of the `ACRPullSecret`.
    pub fn spec(&self) -> ACRPullSecretSpec {
        let workload = self.inputs.identity.workload();
        let elsewhere = workload.filter(|workload| workload.namespace != *self.namespace());
        ACRPullSecretSpec {
            generator: self.generator(),
            service_account_name: workload.map(|workload| workload.service_account.to_string()),
            service_account_namespace: elsewhere.map(|workload| workload.namespace.to_string()),
            service_account_of: workload.and(self.account_of),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::{
            CloudEndpoints, ForMessages, Identity, ManagedIdentity, ManagedIdentityId, TenantIdSource,
            WorkloadIdentity,
        },
        reference::{Kind, Reference},
        registry::{RegistrySuffixes, Scope},
    };

    fn inputs(identity: Identity, scope: Option<&str>) -> TokenInputs {
        let suffixes: RegistrySuffixes = "azurecr.io".parse().unwrap();
        TokenInputs {
            identity,
            registry: suffixes.permit("contoso.azurecr.io").unwrap(),
            scope: scope.map(|scope| Scope::parse(scope).unwrap()),
        }
    }

    fn workload(namespace: &str) -> Identity {
        Identity::Workload(WorkloadIdentity {
            namespace: NamespaceName::new(namespace).unwrap(),
            service_account: ObjectName::new("app").unwrap(),
            client_id: "11111111-1111-1111-1111-111111111111".to_owned(),
            client_id_annotation: ForMessages("azure.workload.identity/client-id"),
            tenant_id: "22222222-2222-2222-2222-222222222222".to_owned(),
            tenant_id_source: ForMessages(TenantIdSource::Flag),
            audiences: vec!["api://AzureADTokenExchange".to_owned()],
            cloud: CloudEndpoints {
                authority_host: "login.microsoftonline.com".to_owned(),
                acr_audience: "https://containerregistry.azure.net".to_owned(),
            },
        })
    }

    /// A fingerprint is kept in the status of each pull secret. If one of these changes, an upgrade replaces every
    /// token of a cluster, and two versions that run at the same time replace each other's tokens.
    #[test]
    fn fingerprints_do_not_change_between_versions() {
        let managed = Identity::Managed(ManagedIdentity {
            id: ManagedIdentityId::SystemAssigned,
            tenant_id: None,
            acr_audience: "https://containerregistry.azure.net".to_owned(),
        });
        let fingerprints = [
            inputs(workload("team-a"), None),
            inputs(workload("team-a"), Some("repository:team/app:pull")),
            inputs(managed, None),
        ]
        .map(|inputs| inputs.fingerprint());
        assert_eq!(
            fingerprints,
            [
                "bc77480075d69b617a255c10a32ec86c",
                "e2efdc180050befa1454094548ee88fe",
                "8f42c6f8dee0c9646e906c04d94f2ed2"
            ]
        );
    }

    #[test]
    fn the_spec_says_whose_service_account_it_names() {
        let generator = Reference {
            kind: Kind::ClusterGenerator,
            name: ObjectName::new("contoso").unwrap(),
        };
        let app = ObjectName::new("app").unwrap();
        let request = PullSecretRequest::new(&NamespaceName::new("team-a").unwrap(), generator, Some(&app));
        let own = PullSecretPlan::new(
            &request,
            &ServiceAccount::OfPod(app),
            inputs(workload("team-a"), None),
        )
        .spec();
        assert_eq!(own.service_account_of, Some(AccountOf::Pod));
        assert_eq!(
            (own.service_account_name.as_deref(), own.service_account_namespace),
            (Some("app"), None)
        );
        let account = ServiceAccount::Named(NamespacedName::new("central", "app").unwrap());
        let central = PullSecretPlan::new(&request, &account, inputs(workload("central"), None)).spec();
        assert_eq!(central.service_account_of, Some(AccountOf::Generator));
        assert_eq!(central.service_account_namespace.as_deref(), Some("central"));
    }
}
