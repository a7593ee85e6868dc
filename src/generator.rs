//! Generators: External Secrets Operator's `ACRAccessToken`, the store of those that
//! exist, and their resolution to one plain value.

mod access_token;
mod resolve;
mod store;

pub use access_token::{ACRAccessToken, ACRAccessTokenSpec};
pub use resolve::{ANNOTATIONS, Account, Resolved, Resolver};
pub use store::{Generators, Guarded, ServiceAccountView, ServiceAccounts, valid};
