//! What a pull secret is made from, and the token that goes into it.

use super::{ACRPullSecretSpec, AccountOf, GeneratorReference, PullSecretRequest, WatchedPullSecret, name};
use crate::{
    generator::{Account, Resolved},
    registry::PullToken,
};
use kube::runtime::reflector::ObjectRef;

/// A resolved request: the pull secret that a Pod needs.
#[derive(Clone, Debug)]
pub struct PullSecretPlan {
    /// The request, by which the plan can be made again.
    pub request: PullSecretRequest,
    /// The `ACRPullSecret`. Its Secret has the same name.
    pub object: ObjectRef<WatchedPullSecret>,
    /// Everything that the token depends on.
    pub inputs: Resolved,
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
}

impl PullSecretPlan {
    /// The plan for this request.
    pub fn new(request: &PullSecretRequest, account: Account<'_>, inputs: Resolved) -> Self {
        Self {
            object: ObjectRef::new(&name(request.reference(), account)).within(request.namespace()),
            request: request.clone(),
            inputs_hash: inputs.fingerprint(),
            inputs,
            account_of: match account {
                Account::Pods(_) => Some(AccountOf::Pod),
                Account::Generators { .. } => Some(AccountOf::Generator),
                Account::None => None,
            },
        }
    }

    /// The namespace of the Pod, of the `ACRPullSecret` and of the Secret.
    pub fn namespace(&self) -> &str {
        self.request.namespace()
    }

    /// The name of the `ACRPullSecret` and of the Secret.
    pub fn name(&self) -> &str {
        &self.object.name
    }

    /// The same plan for a pull secret of another name.
    pub fn rename(&mut self, name: &str) {
        self.object = ObjectRef::new(name).within(self.namespace());
    }

    /// The generator, as the `ACRPullSecret` names it.
    pub fn generator(&self) -> GeneratorReference {
        let reference = self.request.reference();
        GeneratorReference {
            kind: reference.kind.as_str().to_owned(),
            name: reference.name.to_owned(),
        }
    }

    /// The spec of the `ACRPullSecret`.
    pub fn spec(&self) -> ACRPullSecretSpec {
        let workload = self.inputs.identity.workload();
        let elsewhere = workload.filter(|workload| workload.namespace != self.namespace());
        ACRPullSecretSpec {
            generator: self.generator(),
            service_account_name: workload.map(|workload| workload.service_account.clone()),
            service_account_namespace: elsewhere.map(|workload| workload.namespace.clone()),
            service_account_of: workload.and(self.account_of),
        }
    }
}
