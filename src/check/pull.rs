//! Each hop of one pull, with the code of the webhook and the permissions of the caller.

mod pull_secret;
mod token;

pub use pull_secret::state;

use super::{
    api::{ApiServer, Unread, items, name},
    reason::Reason,
    report::{Finding, Status},
    selector,
    settings::Settings,
    target::{ANNOTATED_PODS, Target},
};
use crate::{
    admission::{PodView, image_problems, parse_default_reference, parse_references},
    excluded::ExcludedNamespaces,
    generator::{
        DEFAULT_GENERATOR_LABEL, GeneratorInNamespace, ResolveRules, ServiceAccountAnnotations,
        fetch_annotations, fetch_generator,
    },
    identity::Identity,
    names::{NamespaceName, ObjectName},
    problem::{self, Problem},
    pull_secret::{PullSecretPlan, PullSecretRequest},
    reference::{Kind, Reference},
    registry::ImageName,
};
use serde_json::{Value, json};
use std::{slice, sync::Arc};

/// What every pull of a run needs.
pub struct Environment<'a> {
    /// The API server, with the permissions of the caller.
    pub api: &'a ApiServer,
    /// The installation.
    pub target: &'a Target,
    /// The flags of the webhook.
    pub settings: &'a Settings,
    /// The rules that follow from the flags.
    pub rules: &'a ResolveRules,
    /// The client for Entra and registries.
    pub http: &'a reqwest::Client,
}

impl<'a> Environment<'a> {
    /// The rules of a webhook in the namespace of the installation.
    pub fn rules(target: &Target, settings: &Settings) -> Result<ResolveRules, Finding> {
        let excluded = &settings.serve.excluded_namespaces;
        ExcludedNamespaces::new(Some(target.namespace.clone()), excluded)
            .map(|excluded| settings.serve.resolve_rules(excluded))
            .map_err(|error| Finding::failed("settings", Reason::SettingsInvalid, error.to_string()))
    }

    /// The entry of the registration with this name.
    pub fn entry(&self, entry: &str) -> Option<&'a Value> {
        let configured = &self.settings.serve.tls.webhook_configuration;
        let registration = self.target.registration(configured)?;
        items(registration, "/webhooks")
            .iter()
            .find(|found| found["name"] == entry)
    }
}

/// One pull.
pub struct Pull<'a> {
    /// What it needs.
    pub environment: &'a Environment<'a>,
    /// The request of a Pod.
    pub request: PullSecretRequest,
    /// The image to request.
    pub image: Option<ImageName>,
}

/// The finding about a problem of the webhook's code that ran with the caller's permissions. A refusal of the API
/// server is about the caller, and not about the webhook.
pub fn hop_finding(check: &str, problem: &Problem) -> Finding {
    let because = |reason, sentence: &str| {
        Finding::unknown(check, reason, format!("{sentence}: {}", problem.explanation()))
    };
    match problem.reason {
        problem::Reason::WriteForbidden
        | problem::Reason::AccessForbidden
        | problem::Reason::TokenRequestForbidden => {
            because(Reason::NotPermitted, "your permissions end here")
        }
        problem::Reason::SecretReadForbidden => Finding::unknown(
            check,
            Reason::NotPermitted,
            "your permissions end here: you may not read this Secret",
        ),
        problem::Reason::ApiServerUnavailable => because(Reason::ApiServerUnreachable, "no answer"),
        _ => Finding::problem(check, problem),
    }
}

impl Pull<'_> {
    fn namespace(&self) -> &NamespaceName {
        self.request.namespace()
    }

    /// The findings about all hops, until one fails.
    pub async fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Some(plan) = self.resolve(&mut findings).await else {
            return findings;
        };
        if let Some(image) = &self.image {
            let pod = json!({"spec": {"containers": [{"image": image.to_string()}]}});
            findings.extend(images(&pod, slice::from_ref(&plan)));
        }
        token::check(self, &plan, &mut findings).await;
        findings.extend(state(self.environment.api, &plan).await);
        findings
    }

    /// The plan of the webhook for this pull. `None` if a hop fails; its finding is the last one.
    pub async fn resolve(&self, findings: &mut Vec<Finding>) -> Option<Arc<PullSecretPlan>> {
        match self.try_resolve(findings).await {
            Ok(plan) => Some(Arc::new(plan)),
            Err((check, problem)) => {
                findings.push(hop_finding(check, &problem));
                None
            }
        }
    }

    async fn try_resolve(
        &self,
        findings: &mut Vec<Finding>,
    ) -> Result<PullSecretPlan, (&'static str, Problem)> {
        let Environment { api, rules, .. } = self.environment;
        let (namespace, reference) = (self.namespace(), self.request.reference());
        let at = |check: &'static str| move |problem: Problem| (check, problem);
        rules.excluded.check_pod(namespace).map_err(at("namespace"))?;
        let is_cluster_wide = self.environment.settings.is_cluster_wide();
        let found = fetch_generator(&api.client, is_cluster_wide, namespace, reference).await;
        let found = match found {
            Ok(found) => found,
            Err(problem) => return Err(("generator", self.with_suggestion(problem).await)),
        };
        let spec = found.spec(reference, namespace).map_err(at("generator"))?;
        let generator = GeneratorInNamespace {
            reference,
            namespace,
            spec,
        };
        findings.push(Finding::ok(
            "generator",
            format!("{reference} exists and may be used in namespace {namespace}"),
        ));
        if let Some(problem) = generator.multiple_identities_warning() {
            findings.push(Finding::problem("generator", &problem).status(Status::Warning));
        }
        let registry = rules.registry(generator).map_err(at("registry"))?;
        findings.push(Finding::ok(
            "registry",
            format!("tokens may be sent to {registry}"),
        ));
        let account = rules.service_account(generator, self.request.service_account());
        let account = account.map_err(at("service account"))?;
        let annotations = match account.namespaced_name(namespace) {
            Some(account) => fetch_annotations(&api.client, &account)
                .await
                .map_err(at("service account"))?,
            None => ServiceAccountAnnotations::new(),
        };
        let inputs = rules
            .resolve(generator, &account, &annotations)
            .map_err(at("identity"))?;
        findings.push(Finding::ok("identity", describe(&inputs.identity)));
        Ok(PullSecretPlan::new(&self.request, &account, inputs))
    }

    /// Names a generator of the other kind with the same name, which the reference probably means.
    async fn with_suggestion(&self, problem: Problem) -> Problem {
        let Reference {
            kind: Kind::AccessToken,
            name,
        } = self.request.reference()
        else {
            return problem;
        };
        if problem.reason != problem::Reason::GeneratorNotFound {
            return problem;
        }
        let path = format!("/apis/generators.external-secrets.io/v1alpha1/clustergenerators/{name}");
        match self.environment.api.get(&path).await {
            Ok(_) => {
                let fact = format!(
                    "{}; a ClusterGenerator of this name exists, which is referenced as ClusterGenerator/{name}",
                    problem.fact
                );
                Problem { fact, ..problem }
            }
            Err(_) => problem,
        }
    }
}

/// The findings about the images of a Pod that the tokens of its generators are of no use for.
pub fn images(pod: &Value, plans: &[Arc<PullSecretPlan>]) -> Vec<Finding> {
    let pod = pod.to_string();
    let Ok(pod) = serde_json::from_str::<PodView<'_>>(&pod) else {
        return Vec::new();
    };
    image_problems(&pod, plans)
        .map(|problem| Finding::problem("images", &problem))
        .collect()
}

/// The identity and where its parts come from.
fn describe(identity: &Identity) -> String {
    match identity {
        Identity::Workload(workload) => format!(
            "{identity} has the client id {} (annotation {}) in tenant {}, audience {}",
            workload.client_id,
            workload.client_id_annotation.0,
            workload.tenant_id,
            workload.audiences.join(", ")
        ),
        Identity::ServicePrincipal(principal) => {
            format!("{identity} in tenant {}", principal.tenant_id)
        }
        Identity::Managed(_) => identity.to_string(),
    }
}

/// The finding about the namespace of a pull that the registration does not select.
pub async fn namespace_finding(environment: &Environment<'_>, namespace: &NamespaceName) -> Option<Finding> {
    let path = format!("/api/v1/namespaces/{namespace}");
    let found = match environment.api.get(&path).await {
        Ok(found) => found,
        Err(Unread::NotFound) => {
            let message = format!("namespace {namespace} does not exist; create it, or correct --namespace");
            let finding = Finding::failed("namespace", Reason::NamespaceNotFound, message);
            return Some(finding.command(format!("kubectl create namespace {namespace}")));
        }
        Err(unread) => return Some(unread.finding("namespace", &format!("namespace {namespace}"))),
    };
    let unmet = selector::unmet(environment.entry(ANNOTATED_PODS)?, &found)?;
    let message = format!(
        "Pods of namespace {namespace} are not sent to the webhook: the registration selects only Namespaces {}",
        unmet.requirement
    );
    let finding = Finding::failed("namespace", Reason::NamespaceNotSelected, message);
    // The name of a Namespace cannot be changed, and an excluded one is excluded on purpose.
    Some(match unmet.key.as_str() {
        "kubernetes.io/metadata.name" => finding,
        key => finding.command(format!("kubectl label namespace {namespace} {key}-")),
    })
}

/// The references to check: the one that the caller names, or the default of the namespace, or all ACRAccessTokens.
pub async fn references(
    api: &ApiServer,
    namespace: &NamespaceName,
    generator: Option<&str>,
) -> Result<Vec<Reference>, Finding> {
    if let Some(generator) = generator {
        return parse_references(generator).map_err(|problem| Finding::problem("generator", &problem));
    }
    let found = api
        .get(&format!("/api/v1/namespaces/{namespace}"))
        .await
        .unwrap_or_default();
    if let Some(label) = found["metadata"]["labels"][DEFAULT_GENERATOR_LABEL].as_str() {
        let default =
            parse_default_reference(label).map_err(|problem| Finding::problem("generator", &problem))?;
        if let Some(default) = default {
            return Ok(vec![default]);
        }
    }
    let path =
        format!("/apis/generators.external-secrets.io/v1alpha1/namespaces/{namespace}/acraccesstokens");
    let all = api.list(&path).await;
    let all = all.map_err(|unread| {
        unread.finding("generator", &format!("ACRAccessTokens in namespace {namespace}"))
    })?;
    let names = all.iter().filter_map(|object| ObjectName::new(name(object)));
    let all: Vec<_> = names
        .map(|name| Reference {
            kind: Kind::AccessToken,
            name,
        })
        .collect();
    if all.is_empty() {
        let message = format!(
            "namespace {namespace} has neither an ACRAccessToken nor a default generator; create one, or name a \
             ClusterGenerator as ClusterGenerator/NAME"
        );
        let problem = Problem::new(problem::Reason::GeneratorNotFound, message);
        return Err(Finding::problem("generator", &problem));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_callers_own_call_is_not_a_failure() {
        let found = |reason| {
            let finding = hop_finding("hop", &Problem::new(reason, "reading it was refused: no"));
            (finding.status, finding.reason)
        };
        for reason in [
            problem::Reason::WriteForbidden,
            problem::Reason::TokenRequestForbidden,
            problem::Reason::SecretReadForbidden,
        ] {
            assert_eq!(
                found(reason),
                (Status::Unknown, Some("NotPermitted")),
                "{reason:?}"
            );
        }
        assert_eq!(
            found(problem::Reason::ApiServerUnavailable),
            (Status::Unknown, Some("ApiServerUnreachable"))
        );
        assert_eq!(
            found(problem::Reason::EntraRefused),
            (Status::Failed, Some("EntraRefused"))
        );
    }
}
