//! Generators: External Secrets Operator's `ACRAccessToken` and `ClusterGenerator`, the store
//! of those that exist, and their resolution to one plain value.

mod access_token;
mod bounded;
mod cluster_generator;
mod defaults;
mod epoch;
mod namespaces;
mod reference;
mod resolve;
mod store;

pub use access_token::{ACRAccessToken, ACRAccessTokenSpec};
pub use cluster_generator::{ClusterGenerator, ClusterGeneratorSpec};
pub use defaults::NamespaceDefaults;
pub use epoch::Epoch;
pub use namespaces::NamespaceList;
pub use reference::{Kind, Reference};
pub use resolve::{ANNOTATIONS, Account, Referenced, Resolved, Resolver};
pub use store::{Generator, Generators, ServiceAccountView, ServiceAccounts};
