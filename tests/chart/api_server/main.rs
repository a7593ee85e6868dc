//! What an API server does with the chart: installing, stricter platforms, the order of webhooks, and the commands of
//! the documents. There is no node: Pods are admitted and stay Pending.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;
mod documents;
mod installation;
mod manifests;
mod ordering;
mod permissions;
mod platforms;
mod release;
mod schemas;
mod turn;
mod webhooks;
