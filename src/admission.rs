//! Decides about Pods: which pull secrets a Pod needs, and the response to its AdmissionReview.

mod annotation;
mod defaults;
mod http;
mod image_problems;
mod patch;
mod response;
mod review;
mod warnings;

pub use annotation::{ACCESS_TOKEN_ANNOTATION, MAX_REFERENCES, parse_default_reference, parse_references};
use defaults::DefaultRequest;
pub use http::service;
pub use image_problems::image_problems;
pub use patch::{INJECTED_LABEL, PULL_SECRETS_ANNOTATION, encoded_patch};
pub use response::{AdmissionResponse, Verdict};
pub use review::{PodView, ReferenceSource, Request, parse};
use warnings::Warning;

use crate::{
    deadline::Deadline,
    generator::NamespaceDefaults,
    live_pod::LivePod,
    names::NamespaceName,
    problem::{Class, Command, Problem, Reason},
    pull_secret::{Ensured, Issuer, PullSecretRequest, Resolution, Resolver},
    reference::Reference,
    telemetry::{AdmissionOutcome, Metrics},
    untrusted::UntrustedText,
};
use futures::future::join_all;
use std::{sync::Arc, time::Instant};

/// Decides about Pods. Clones share all state.
#[derive(Clone)]
pub struct Admission(Arc<Inner>);

struct Inner {
    resolver: Arc<Resolver>,
    defaults: NamespaceDefaults,
    issuer: Issuer,
    metrics: Metrics,
}

impl Admission {
    /// Creates the admission from its parts.
    pub fn new(
        resolver: Arc<Resolver>,
        defaults: NamespaceDefaults,
        issuer: Issuer,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            resolver,
            defaults,
            issuer,
            metrics,
        }))
    }

    /// Decides about a Pod, and counts and logs the verdict.
    pub async fn decide(&self, request: &Request<'_>, deadline: Deadline) -> Verdict {
        let start = Instant::now();
        let verdict = deadline
            .bound(self.0.decide(request, deadline))
            .await
            .unwrap_or_else(|| {
                Verdict::Failed(Problem::new(
                    Reason::ApiServerUnavailable,
                    "timed out waiting for the Kubernetes API server",
                ))
            });
        let (outcome, problem) = match &verdict {
            Verdict::Untouched => (AdmissionOutcome::Untouched, None),
            Verdict::Audited { problem, .. } => (AdmissionOutcome::Audited, problem.as_ref()),
            Verdict::Patched { pending, .. } => match pending.first() {
                None => (AdmissionOutcome::Patched, None),
                first => (AdmissionOutcome::PatchedWithoutToken, first),
            },
            Verdict::Denied(problem) => (AdmissionOutcome::Denied, Some(problem)),
            Verdict::Failed(problem) => (AdmissionOutcome::Failed, Some(problem)),
        };
        self.0.metrics.count_admission(outcome, problem, start.elapsed());
        if let Some(problem) = problem {
            let Request {
                uid,
                namespace,
                object,
                ..
            } = request;
            // Without client certificates, the review may come from anybody, and these fields are untrusted.
            let uid = UntrustedText::new(uid);
            let pod = UntrustedText::new(object.name());
            let outcome = outcome.as_str();
            let command = problem.command.as_ref().map(Command::as_str);
            tracing::info!(%uid, %namespace, %pod, outcome, %problem, command, "admission");
        }
        verdict
    }

    /// The pull secrets that an existing Pod in this namespace requests, by the rules of its admission.
    pub async fn requests_of(
        &self,
        namespace: &NamespaceName,
        pod: &LivePod,
    ) -> Result<Vec<PullSecretRequest>, Problem> {
        let service_account = pod.spec.service_account_name.as_ref();
        let annotations = pod.metadata.annotations.as_ref();
        let Some(annotation) = annotations.and_then(|all| all.get(ACCESS_TOKEN_ANNOTATION)) else {
            // The mode does not matter: the Pod has its pull secret already.
            let Some(labels) = self.0.defaults.fetch(namespace).await? else {
                return Ok(Vec::new());
            };
            let default = parse_default_reference(&labels.generator)?;
            let default =
                default.map(|reference| PullSecretRequest::new(namespace, reference, service_account));
            return Ok(default.into_iter().collect());
        };
        let request = |reference| PullSecretRequest::new(namespace, reference, service_account);
        Ok(parse_references(annotation)?.into_iter().map(request).collect())
    }
}

impl Inner {
    async fn decide(self: &Arc<Self>, request: &Request<'_>, deadline: Deadline) -> Verdict {
        match self.try_decide(request, deadline).await {
            Ok(verdict) => verdict,
            Err(problem) if problem.reason.class() == Class::ApiServer => Verdict::Failed(problem),
            Err(problem) => Verdict::Denied(problem),
        }
    }

    async fn try_decide(
        self: &Arc<Self>,
        request: &Request<'_>,
        deadline: Deadline,
    ) -> Result<Verdict, Problem> {
        let requests = match request.reference_source() {
            None => Vec::new(),
            Some(ReferenceSource::PodAnnotation(annotation)) => parse_references(annotation)?
                .into_iter()
                .map(|reference| pull_secret_request(request, reference))
                .collect(),
            Some(ReferenceSource::NamespaceLabel) => match self.default_request(request).await? {
                DefaultRequest::None => Vec::new(),
                DefaultRequest::Enforced(pull_secret) => vec![pull_secret],
                DefaultRequest::Audited(pull_secret) => return Ok(self.audit(request, pull_secret).await),
            },
        };
        if requests.is_empty() {
            return Ok(Verdict::Untouched);
        }
        // Every request is resolved before anything is created: a refusal leaves nothing behind.
        let mut plans = Vec::with_capacity(requests.len());
        let mut warnings = Vec::new();
        for pull_secret in requests {
            let resolved = self.resolver.resolve(&pull_secret).await;
            let Resolution { plan, warning } = resolved.inspect_err(|problem| {
                if !request.dry_run {
                    self.resolver.warn_on_generator(&pull_secret, problem);
                }
            })?;
            warnings.extend(warning.map(Warning::from));
            plans.push(plan);
        }
        warnings.extend(image_problems(&request.object, &plans).map(Warning::from));
        let names: Vec<_> = plans.iter().map(|plan| plan.name().as_str()).collect();
        let usual_patch = match plans.as_slice() {
            [plan] => Some(plan.usual_patch()),
            _ => None,
        };
        let patch = encoded_patch(&request.object, &names, usual_patch);
        let mut pending = Vec::new();
        if !request.dry_run {
            let waits: Vec<_> = plans
                .into_iter()
                .filter_map(|plan| self.issuer.ensure(plan, deadline))
                .collect();
            for ensured in join_all(waits).await {
                match ensured? {
                    Ensured::Issued => {}
                    Ensured::Pending(problem) => pending.push(problem),
                    Ensured::Incomplete(problem) => warnings.push(problem.into()),
                }
            }
        }
        Ok(Verdict::Patched {
            patch,
            pending,
            warnings,
        })
    }
}

fn pull_secret_request(request: &Request<'_>, reference: Reference) -> PullSecretRequest {
    PullSecretRequest::new(&request.namespace, reference, request.object.service_account())
}
