//! What the chart renders, without an API server, and that `deploy/kustomize` is the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod documents;
mod kustomize;
mod metadata;
mod monitoring;
mod options;
mod pods;
mod reference;
mod registration;
mod values;
