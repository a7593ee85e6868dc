//! acr-pull-webhook: a Kubernetes mutating admission webhook that gives an annotated Pod
//! an image pull secret for Azure Container Registry, got with the Pod's own identity.
//!
//! The way of one Pod, and the room of each step:
//! [`admission`] reads the review and the annotation → [`generator`] resolves who asks
//! which registry for what → [`pull_secret`] names the Secret and, where it is not fresh,
//! has [`identity`] ask Entra and [`registry`] exchange the token, and writes it →
//! [`admission`] patches the Pod.
//!
//! Of all replicas, [`leader`] lets one do what shall be done once. Admission does not depend on it.

pub mod admission;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod crds;
pub mod deadline;
pub mod events;
pub mod excluded;
pub mod fair_semaphore;
pub mod foreign;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod generator;
pub mod identity;
pub mod jwt;
pub mod kubernetes;
pub mod leader;
pub mod pem;
pub mod problem;
pub mod pull_secret;
pub mod registry;
pub mod serve;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod transport;
pub mod upkeep;
pub mod watch;
