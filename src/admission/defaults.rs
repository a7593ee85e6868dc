//! The pull secret that the labels of a Namespace request for a Pod without the annotation.

use super::{
    Inner, Request, Verdict, annotation::Mode, image_problems, parse_default_reference, pull_secret_request,
    review::without_port, warnings::Warning,
};
use crate::{
    generator::{DEFAULT_MODE_LABEL, DefaultLabels},
    problem::{Class, Problem},
    pull_secret::{PullSecretRequest, Resolution},
};

/// What the labels of a Namespace request for a Pod.
pub enum DefaultRequest {
    /// No pull secret.
    None,
    /// This pull secret.
    Enforced(PullSecretRequest),
    /// A warning about this pull secret, or about the reason why the Pod would be refused.
    Audited(Result<PullSecretRequest, Problem>),
}

impl Inner {
    /// The pull secret that the labels of the Namespace request for a Pod without the annotation. It is requested only
    /// for a Pod with an image from the registry of the generator, because the Pod itself requested nothing.
    pub(super) async fn default_request(&self, request: &Request<'_>) -> Result<DefaultRequest, Problem> {
        let Request {
            namespace, object, ..
        } = request;
        // An invalid label must not affect Pods that could not use any generator.
        if self.resolver.excluded().contains(namespace)
            || !object
                .registries()
                .any(|registry| self.resolver.may_serve(without_port(registry)))
        {
            return Ok(DefaultRequest::None);
        }
        if let Some(labels) = self.defaults.cached(namespace)
            && let Ok(Mode::Enforce) = Mode::parse(labels.mode.as_deref())
            && let Ok(Some(reference)) = parse_default_reference(&labels.generator)
            && let pull_secret = pull_secret_request(request, reference)
            && let Some(registry) = self.resolver.known_registry(&pull_secret)
            && object.spelling_of(registry.as_str()).is_some()
        {
            return Ok(DefaultRequest::Enforced(pull_secret));
        }
        // A Pod that is admitted unpatched cannot be patched later, so the watches alone must not decide that.
        // Boxed so that the future of a warm admission stays small.
        Box::pin(self.fetch_default_request(request)).await
    }

    async fn fetch_default_request(&self, request: &Request<'_>) -> Result<DefaultRequest, Problem> {
        let Some(labels) = self.defaults.fetch(&request.namespace).await? else {
            return Ok(DefaultRequest::None);
        };
        let is_audit = Mode::parse(labels.mode.as_deref())? == Mode::Audit;
        let pull_secret = self.default_of(request, &labels).await;
        Ok(match pull_secret.transpose() {
            None => DefaultRequest::None,
            Some(pull_secret) if is_audit => DefaultRequest::Audited(pull_secret),
            Some(pull_secret) => DefaultRequest::Enforced(pull_secret?),
        })
    }

    /// The pull secret of these labels, if an image of the Pod needs it.
    async fn default_of(
        &self,
        request: &Request<'_>,
        labels: &DefaultLabels,
    ) -> Result<Option<PullSecretRequest>, Problem> {
        let Some(reference) = parse_default_reference(&labels.generator)? else {
            return Ok(None);
        };
        let default = pull_secret_request(request, reference);
        let registry = self.resolver.fetch_registry(&default).await.map_err(|problem| {
            problem.at(format_args!(
                "default generator of namespace {}",
                request.namespace
            ))
        })?;
        // An image that names the registry in another way counts, so that the creator of the Pod is warned.
        let is_asked_for = request.object.spelling_of(registry.as_str()).is_some();
        Ok(is_asked_for.then_some(default))
    }

    /// The verdict about a Pod in a Namespace whose default is only audited: a warning about what would happen. No token
    /// is requested, so only Entra and the registry could still refuse it.
    pub(super) async fn audit(
        &self,
        request: &Request<'_>,
        pull_secret: Result<PullSecretRequest, Problem>,
    ) -> Verdict {
        let resolution = match pull_secret {
            Ok(pull_secret) => self.resolver.resolve(&pull_secret).await,
            Err(problem) => Err(problem),
        };
        let namespace = &request.namespace;
        let audit =
            format_args!("label {DEFAULT_MODE_LABEL} of namespace {namespace} is audit; without it, ");
        match resolution {
            Ok(Resolution { plan, warning }) => {
                let outcome = format!(
                    "{audit}the Pod would get pull secret {} for {}, unless Entra or the registry refuses its token",
                    plan.name(),
                    plan.inputs.registry
                );
                let mut warnings = vec![Warning::new(outcome)];
                warnings.extend(warning.map(Warning::from));
                warnings.extend(image_problems(&request.object, &[plan]).map(Warning::from));
                Verdict::Audited {
                    warnings,
                    problem: None,
                }
            }
            Err(problem) => {
                let outcome = match problem.reason.class() {
                    Class::ApiServer => "it is not known what would happen to the Pod",
                    _ => "the Pod would be refused",
                };
                Verdict::Audited {
                    warnings: vec![Warning::about(format_args!("{audit}{outcome}: "), &problem)],
                    problem: Some(problem),
                }
            }
        }
    }
}
