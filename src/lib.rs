//! acr-pull-webhook: a Kubernetes mutating admission webhook that gives an annotated Pod an image pull secret for Azure
//! Container Registry, issued with the Pod's own identity.
//!
//! The steps of an admission, and the module of each:
//!
//! 1. [`admission`] decodes the AdmissionReview and the annotation.
//! 2. [`generator`] resolves the annotation's reference to a registry, an identity and a scope.
//! 3. [`pull_secret`] names the Secret. If the Secret is not fresh, [`identity`] obtains a token from Entra,
//!    [`registry`] exchanges it for a registry token, and [`pull_secret`] writes the Secret.
//! 4. [`admission`] returns the patch.
//!
//! [`leader`] elects one replica, and [`upkeep`] renews, repairs and deletes pull secrets on that replica. Admission
//! does not depend on it.
//!
//! Below these modules, [`watch`] follows the objects of a [`cluster`], [`kubernetes`] calls its API server, and
//! [`transport`] and [`fair_semaphore`] limit and share the calls to all hosts. [`tls`] accepts the API server's
//! connections, [`telemetry`] reports to operators, and [`serve`] puts all modules together.

pub mod admission;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod crds;
pub mod deadline;
pub mod events;
pub mod excluded;
pub mod fair_semaphore;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod generator;
pub mod identity;
pub mod jwt;
pub mod kubernetes;
pub mod leader;
pub mod live_pod;
pub mod pem;
pub mod problem;
pub mod pull_secret;
pub mod registry;
pub mod serve;
pub mod start_error;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod transport;

pub mod untrusted;
pub mod upkeep;
pub mod watch;
