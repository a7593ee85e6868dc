//! Pull secrets: the request of a Pod, the plan that it resolves to, the `ACRPullSecret` and the Secret, and how these
//! are issued.

mod cache;
mod census;
mod changes;
mod docker_config;
mod extra_metadata;
mod flight;
mod freshness;
mod issuance;
mod issuer;
mod marks;
mod name;
mod pair;
mod plan;
mod policy;
mod request;
mod resolver;
mod resource;
mod store;
mod writer;

pub use extra_metadata::ExtraMetadata;
#[cfg(test)]
pub use freshness::freshness;
pub use freshness::renewal_share;
pub use issuance::Cause;
pub use issuer::{Issuer, Settings};
pub use name::{name, parse_name};
pub use plan::{IssuedToken, PullSecretPlan};
pub use policy::{Ensured, OnUpstreamFailure};
pub use request::PullSecretRequest;
pub use resolver::{Resolution, Resolver};
#[cfg(test)]
pub(crate) use resource::ISSUED;
pub(crate) use resource::READY;
pub use resource::{
    ACRPullSecret, ACRPullSecretSpec, ACRPullSecretStatus, AccountOf, GeneratorReference, StoredKind,
};
pub use store::{PullSecrets, WatchedPullSecret};
pub use writer::Writer;

/// Everything that is computed from the times of an object.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(object: &ACRPullSecret) {
    freshness::freshness(object, "hash", jiff::Timestamp::now());
}
