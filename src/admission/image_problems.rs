//! Finds the images of a Pod that its pull secrets are of no use for.

use super::review::{PodView, Spelling};
use crate::{
    problem::{Problem, Reason},
    pull_secret::PullSecretPlan,
    untrusted::UntrustedText,
};
use std::sync::Arc;

/// The maximum length of an image's registry or name in a warning.
const MAX_SHOWN_BYTES: usize = 64;

/// The pull secrets that the kubelet would not use for any image, and the images that no token for their registry
/// covers. Nothing is formatted for a Pod without a problem.
pub fn image_problems(pod: &PodView<'_>, plans: &[Arc<PullSecretPlan>]) -> impl Iterator<Item = Problem> {
    plans.iter().enumerate().filter_map(move |(number, plan)| {
        registry_problem(pod, plan).or_else(|| scope_problem(pod, plans, number))
    })
}

/// The problem of a pull secret that the kubelet would not use for any image.
fn registry_problem(pod: &PodView<'_>, plan: &PullSecretPlan) -> Option<Problem> {
    let registry = plan.inputs.registry.as_str();
    let fact = match pod.spelling_of(registry) {
        Some(Spelling::Exact) => return None,
        Some(Spelling::Other(found)) => format!(
            "the kubelet does not use the pull secret for an image of {}: write {registry} in lower case and without a port",
            UntrustedText::quoted(found).at_most(MAX_SHOWN_BYTES)
        ),
        None => format!(
            "no image of the Pod comes from {registry}, the registry of {}",
            plan.request.reference()
        ),
    };
    Some(Problem::new(Reason::RegistryNotUsed, fact))
}

/// The problem of an image that no scope of the Pod's generators for this registry covers. It is reported for the first
/// of these generators.
fn scope_problem(pod: &PodView<'_>, plans: &[Arc<PullSecretPlan>], number: usize) -> Option<Problem> {
    let plan = plans.get(number)?;
    plan.inputs.scope.as_ref()?;
    let registry = &plan.inputs.registry;
    let same_registry = |other: &&Arc<PullSecretPlan>| other.inputs.registry == *registry;
    if plans.iter().position(|other| same_registry(&other)) != Some(number) {
        return None;
    }
    let can_pull = |repository: &str| {
        let mut scopes = plans
            .iter()
            .filter(same_registry)
            .map(|plan| plan.inputs.scope.as_ref());
        scopes.any(|scope| scope.is_none_or(|scope| scope.can_pull(repository)))
    };
    let outside = pod
        .repositories_of(registry.as_str())
        .find(|name| !can_pull(name))?;
    let fact = format!(
        "image {registry}/{} is not in spec.scope of {}, so the kubelet cannot pull it",
        UntrustedText::new(outside).at_most(MAX_SHOWN_BYTES),
        plan.request.reference()
    );
    Some(Problem::new(Reason::ImageOutsideScope, fact).command(plan.patch_scope_command()))
}
