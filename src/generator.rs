//! Generators: the kinds `ACRAccessToken` and `ClusterGenerator` of External Secrets Operator, the watched stores of
//! these objects, and their resolution to the inputs of a token.

mod access_token;
mod bounded;
mod cluster_generator;
mod defaults;
mod namespaces;
mod resolve;
mod revision;
mod store;

pub use access_token::{ACRAccessToken, ACRAccessTokenSpec};
pub use cluster_generator::{ClusterGenerator, ClusterGeneratorSpec};
pub use defaults::{DEFAULT_GENERATOR_LABEL, DEFAULT_MODE_LABEL, DefaultLabels, NamespaceDefaults};
pub use namespaces::{ALLOWED_NAMESPACES, NamespaceList};
pub use resolve::{
    GeneratorInNamespace, ResolveRules, SERVICE_ACCOUNT_ANNOTATIONS, ServiceAccount, TokenInputs,
};
pub use revision::Revision;
pub use store::{
    Generator, Generators, ServiceAccountAnnotations, ServiceAccounts, fetch_annotations, fetch_generator,
};
