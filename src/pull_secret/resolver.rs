//! From a request to a plan, by the watched generators and service accounts, and by the API server for what the watches
//! do not show yet.

use super::{
    PullSecretPlan, PullSecretRequest,
    cache::{RefusalCache, ResultCache},
};
use crate::{
    cluster::Cluster,
    events::Events,
    excluded::ExcludedNamespaces,
    generator::{
        Generator, GeneratorInNamespace, Generators, ResolveRules, Revision, SERVICE_ACCOUNT_ANNOTATIONS,
        ServiceAccount, ServiceAccountAnnotations, ServiceAccounts,
    },
    problem::Problem,
    registry::RegistryHost,
};
use std::sync::Arc;

/// Resolves requests.
pub struct Resolver {
    generators: Generators,
    accounts: ServiceAccounts,
    /// Of the watched generators and service accounts.
    revision: Revision,
    rules: ResolveRules,
    events: Events,
    resolutions: ResultCache<PullSecretRequest, Resolution>,
    refusals: RefusalCache<PullSecretRequest>,
    registry_refusals: RefusalCache<PullSecretRequest>,
}

/// A plan, and what the creator of the Pod should know about it.
#[derive(Clone)]
pub struct Resolution {
    /// The pull secret that is needed.
    pub plan: Arc<PullSecretPlan>,
    /// A warning about the generator.
    pub warning: Option<Problem>,
}

impl Resolver {
    /// Starts the watches of generators and service accounts.
    pub fn new(cluster: &Cluster, rules: ResolveRules, events: Events) -> Self {
        let revision = Revision::default();
        Self {
            generators: Generators::watch(cluster, &revision),
            accounts: ServiceAccounts::watch(cluster, SERVICE_ACCOUNT_ANNOTATIONS, &revision),
            revision,
            rules,
            events,
            resolutions: ResultCache::default(),
            refusals: RefusalCache::default(),
            registry_refusals: RefusalCache::default(),
        }
    }

    /// Resolves a request. An object that a watch does not show, or shows as invalid, is read from the API server once
    /// before the request is refused.
    pub async fn resolve(&self, request: &PullSecretRequest) -> Result<Resolution, Problem> {
        // Every way to a token comes through here: admission, renewal and repair.
        self.excluded().check_pod(request.namespace())?;
        let revision = self.revision.current();
        if let Some(resolution) = self.resolutions.get(request, revision) {
            return Ok(resolution);
        }
        if let Some(resolution) = self.resolve_from_watches(request) {
            self.resolutions.put(request, &resolution, revision);
            return Ok(resolution);
        }
        if let Some(problem) = self.refusals.get(request, revision) {
            return Err(problem);
        }
        // Boxed so that the future of a warm admission stays small.
        let resolution = Box::pin(self.resolve_live(request)).await;
        resolution.inspect_err(|problem| self.refusals.put(request, problem, revision))
    }

    fn resolve_from_watches(&self, request: &PullSecretRequest) -> Option<Resolution> {
        let generator = self.generators.cached(request.namespace(), request.reference())?;
        let generator = referenced(request, &generator).ok()?;
        let account = self
            .rules
            .service_account(generator, request.service_account())
            .ok()?;
        let annotations = match account.namespaced_name(request.namespace()) {
            Some(account) => self.accounts.cached(&account)?,
            None => ServiceAccountAnnotations::new(),
        };
        self.resolution(request, generator, &account, &annotations).ok()
    }

    /// Resolves a request by what the API server has, whatever the watches show.
    pub async fn resolve_live(&self, request: &PullSecretRequest) -> Result<Resolution, Problem> {
        let generator = self
            .generators
            .fetch(request.namespace(), request.reference())
            .await?;
        let generator = referenced(request, &generator)?;
        let account = self.rules.service_account(generator, request.service_account())?;
        let annotations = match account.namespaced_name(request.namespace()) {
            Some(account) => self.accounts.fetch(&account).await?,
            None => ServiceAccountAnnotations::new(),
        };
        self.resolution(request, generator, &account, &annotations)
    }

    fn resolution(
        &self,
        request: &PullSecretRequest,
        generator: GeneratorInNamespace<'_>,
        account: &ServiceAccount,
        annotations: &ServiceAccountAnnotations,
    ) -> Result<Resolution, Problem> {
        let inputs = self.rules.resolve(generator, account, annotations)?;
        Ok(Resolution {
            plan: Arc::new(PullSecretPlan::new(request, account, inputs)),
            warning: generator.multiple_identities_warning(),
        })
    }

    /// The namespaces whose Pods get no pull secret.
    pub fn excluded(&self) -> &ExcludedNamespaces {
        &self.rules.excluded
    }

    /// Reports a problem as an Event about the generator where the generator is at fault: its owner may never see the
    /// Pods.
    pub fn warn_on_generator(&self, request: &PullSecretRequest, problem: &Problem) {
        if problem.reason.concerns_generator()
            && let Some(generator) = self.generators.cached(request.namespace(), request.reference())
        {
            let about = generator.object_reference();
            self.events
                .warn(about, problem.reason.as_str(), &problem.message());
        }
    }

    /// The registry of the generator, as the watch shows it.
    pub fn known_registry(&self, request: &PullSecretRequest) -> Option<RegistryHost> {
        let generator = self.generators.cached(request.namespace(), request.reference())?;
        self.rules.registry(referenced(request, &generator).ok()?).ok()
    }

    /// The registry of the generator, as the API server has it.
    pub async fn fetch_registry(&self, request: &PullSecretRequest) -> Result<RegistryHost, Problem> {
        let revision = self.revision.current();
        if let Some(problem) = self.registry_refusals.get(request, revision) {
            return Err(problem);
        }
        let registry = async {
            let generators = &self.generators;
            let generator = generators.fetch(request.namespace(), request.reference()).await?;
            self.rules.registry(referenced(request, &generator)?)
        };
        let registry = registry.await;
        registry.inspect_err(|problem| self.registry_refusals.put(request, problem, revision))
    }

    /// Whether a generator could be for a registry of this name.
    pub fn may_serve(&self, registry: &str) -> bool {
        self.rules.registry_suffixes.permit(registry).is_ok()
    }
}

fn referenced<'a>(
    request: &'a PullSecretRequest,
    generator: &'a Generator,
) -> Result<GeneratorInNamespace<'a>, Problem> {
    let reference = request.reference();
    Ok(GeneratorInNamespace {
        reference,
        namespace: request.namespace(),
        spec: generator.spec(reference, request.namespace())?,
    })
}
