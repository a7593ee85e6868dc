//! What one reference of a Pod asks for, by names alone, and its resolution to an order.

use super::{ACRPullSecret, GeneratorReference, Order, name, recent::Recent};
use crate::{
    cluster::Cluster,
    events::Events,
    generator::{
        ANNOTATIONS, Account, Epoch, Generator, Generators, Kind, Reference, Referenced, Resolved, Resolver,
        ServiceAccountView, ServiceAccounts,
    },
    problem::{Problem, Reason},
    registry::RegistryHost,
};
use std::sync::Arc;

/// The service account of a Pod that names none.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// What one reference of a Pod asks for. Names alone, so that it can be resolved anew later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wish {
    /// The kind of the generator.
    kind: Kind,
    /// The namespace of the Pod, the name of the generator and the service account of the Pod, one after the other: each
    /// Pod brings such a wish, and most forget it at once.
    names: String,
    generator_begins: usize,
    service_account_begins: usize,
}

/// All that wishes are resolved with.
pub struct Catalog {
    generators: Generators,
    accounts: ServiceAccounts,
    /// Of both.
    epoch: Epoch,
    resolver: Resolver,
    /// Tells those who wrote a generator.
    events: Events,
    recent: Recent,
}

/// An order, and what whoever made the Pod should know of it.
#[derive(Clone)]
pub struct Resolution {
    /// The pull secret that is needed.
    pub order: Arc<Order>,
    /// A warning about the generator.
    pub note: Option<String>,
}

// === impl Catalog ===

impl Catalog {
    /// Watches generators and service accounts.
    pub fn new(cluster: &Cluster, resolver: Resolver, events: Events) -> Self {
        let epoch = Epoch::default();
        Self {
            generators: Generators::watch(cluster, &epoch),
            accounts: ServiceAccounts::watch(cluster, ANNOTATIONS, &epoch),
            epoch,
            resolver,
            events,
            recent: Recent::default(),
        }
    }

    /// Resolves a wish. What a watch has not seen yet, be it missing or only wrong as we know it,
    /// is looked up once before the Pod is refused for it.
    pub async fn resolve(&self, wish: &Wish) -> Result<Resolution, Problem> {
        let epoch = self.epoch.now();
        if let Some(resolution) = self.recent.get(wish, epoch) {
            return Ok(resolution);
        }
        if let Some(known) = self.generators.known(wish.namespace(), wish.reference())
            && let Ok(generator) = wish.referenced(&known)
            && let Ok(account) = self.resolver.account(generator, wish.service_account())
            && let Some(annotations) = self.known_annotations(wish, account)
            && let Ok(inputs) = self.resolver.resolve(generator, account, &annotations)
        {
            let resolution = wish.resolution(generator, account, inputs);
            self.recent.put(wish, &resolution, epoch);
            return Ok(resolution);
        }
        // Apart, as it is large: each admission would carry it along.
        Box::pin(self.look_up(wish)).await
    }

    async fn look_up(&self, wish: &Wish) -> Result<Resolution, Problem> {
        let found = self.generators.fetch(wish.namespace(), wish.reference()).await?;
        let generator = wish.referenced(&found)?;
        let account = self.resolver.account(generator, wish.service_account())?;
        let annotations = match account.service_account(wish.namespace()) {
            Some((namespace, name)) => self.accounts.fetch(namespace, name).await?,
            None => ServiceAccountView::new(),
        };
        let inputs = self.resolver.resolve(generator, account, &annotations)?;
        Ok(wish.resolution(generator, account, inputs))
    }

    /// Tells of a problem on the generator, where that is at fault: who wrote it may never see the Pods.
    pub fn blame(&self, wish: &Wish, problem: &Problem) {
        if problem.reason.is_of_generator()
            && let Some(generator) = self.generators.known(wish.namespace(), wish.reference())
        {
            let about = generator.object_reference();
            self.events.warn(about, problem.reason.as_str(), &problem.message);
        }
    }

    /// The registry of the generator that is wished for, from the watch alone.
    pub fn known_registry(&self, wish: &Wish) -> Option<RegistryHost> {
        let generator = self.generators.known(wish.namespace(), wish.reference())?;
        self.resolver.registry(wish.referenced(&generator).ok()?).ok()
    }

    /// The same from the API server.
    pub async fn fetch_registry(&self, wish: &Wish) -> Result<RegistryHost, Problem> {
        let generators = &self.generators;
        let generator = generators.fetch(wish.namespace(), wish.reference()).await?;
        self.resolver.registry(wish.referenced(&generator)?)
    }

    /// Whether some generator could be for a registry of this name.
    pub fn may_serve(&self, registry: &str) -> bool {
        self.resolver.suffixes.permit(registry).is_ok()
    }

    fn known_annotations(&self, wish: &Wish, account: Account<'_>) -> Option<ServiceAccountView> {
        match account.service_account(wish.namespace()) {
            Some((namespace, name)) => self.accounts.known(namespace, name),
            None => Some(ServiceAccountView::new()),
        }
    }
}

// === impl Wish ===

impl Wish {
    /// What a Pod of this namespace and service account asks for by this reference.
    pub fn new(namespace: &str, reference: Reference<'_>, service_account: Option<&str>) -> Self {
        let service_account = service_account.unwrap_or(DEFAULT_SERVICE_ACCOUNT);
        let generator_begins = namespace.len();
        Self {
            kind: reference.kind,
            names: [namespace, reference.name, service_account].concat(),
            generator_begins,
            service_account_begins: generator_begins + reference.name.len(),
        }
    }

    fn namespace(&self) -> &str {
        &self.names[..self.generator_begins]
    }

    fn service_account(&self) -> &str {
        &self.names[self.service_account_begins..]
    }

    /// What the Pods asked for that caused this pull secret.
    pub fn of(owner: &ACRPullSecret) -> Result<Self, Problem> {
        let GeneratorReference { kind, name } = &owner.spec.generator;
        let known = [Kind::AccessToken, Kind::ClusterGenerator];
        let kind = known
            .into_iter()
            .find(|known| known.as_str() == kind)
            .ok_or_else(|| {
                Problem::new(
                    Reason::GeneratorInvalid,
                    format!("{kind:?} is not a kind of generator that is served here"),
                )
            })?;
        let namespace = owner.metadata.namespace.as_deref().unwrap_or_default();
        let service_account = owner.spec.service_account_name.as_deref();
        Ok(Self::new(namespace, Reference { kind, name }, service_account))
    }

    /// Whether the pull secret that this asks for could be called so, whichever account its generator uses.
    pub fn may_be_called(&self, called: &str) -> bool {
        let accounts = [Account::Pods(self.service_account()), Account::None];
        accounts
            .into_iter()
            .any(|account| name(self.reference(), account) == called)
    }

    fn reference(&self) -> Reference<'_> {
        Reference {
            kind: self.kind,
            name: &self.names[self.generator_begins..self.service_account_begins],
        }
    }

    fn referenced<'a>(&'a self, generator: &'a Generator) -> Result<Referenced<'a>, Problem> {
        let reference = self.reference();
        Ok(Referenced {
            reference,
            namespace: self.namespace(),
            spec: generator.spec(reference)?,
        })
    }

    fn resolution(&self, generator: Referenced<'_>, account: Account<'_>, inputs: Resolved) -> Resolution {
        let reference = self.reference();
        let generator_reference = GeneratorReference {
            kind: reference.kind.as_str().to_owned(),
            name: reference.name.to_owned(),
        };
        let order = Order::new(
            self.namespace(),
            name(reference, account),
            generator_reference,
            inputs,
        );
        Resolution {
            order: Arc::new(order),
            note: generator.several_identities(),
        }
    }
}
