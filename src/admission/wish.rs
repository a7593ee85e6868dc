//! What one reference of a Pod asks for, by names alone, and its resolution to an order.

use crate::{
    generator::{
        Account, Generator, Generators, Kind, Reference, Referenced, Resolved, Resolver, ServiceAccountView,
        ServiceAccounts,
    },
    problem::Problem,
    pull_secret::{GeneratorReference, Order, name},
    registry::RegistryHost,
};

/// What one reference of a Pod asks for. Names alone, so that it can be resolved anew later.
pub struct Wish {
    /// The namespace of the Pod.
    pub namespace: String,
    /// The kind of the generator.
    pub kind: Kind,
    /// The name of the generator.
    pub generator: String,
    /// The service account of the Pod.
    pub service_account: String,
}

/// All that wishes are resolved with.
pub struct Catalog {
    /// The generators of the cluster.
    pub generators: Generators,
    /// Its service accounts.
    pub accounts: ServiceAccounts,
    /// How they are resolved.
    pub resolver: Resolver,
}

/// An order, and what whoever made the Pod should know of it.
pub struct Resolution {
    /// The pull secret that is needed.
    pub order: Order,
    /// A warning about the generator.
    pub note: Option<String>,
}

// === impl Catalog ===

impl Catalog {
    /// Resolves a wish. What a watch has not seen yet, be it missing or only wrong as we know it,
    /// is looked up once before the Pod is refused for it.
    pub async fn resolve(&self, wish: &Wish) -> Result<Resolution, Problem> {
        if let Some(known) = self.generators.known(&wish.namespace, wish.reference())
            && let Ok(generator) = wish.referenced(&known)
            && let Ok(account) = self.resolver.account(generator, &wish.service_account)
            && let Some(annotations) = self.known_annotations(wish, account)
            && let Ok(inputs) = self.resolver.resolve(generator, account, &annotations)
        {
            return Ok(wish.resolution(generator, account, inputs));
        }
        let found = self.generators.fetch(&wish.namespace, wish.reference()).await?;
        let generator = wish.referenced(&found)?;
        let account = self.resolver.account(generator, &wish.service_account)?;
        let annotations = match account.service_account(&wish.namespace) {
            Some((namespace, name)) => self.accounts.fetch(namespace, name).await?,
            None => ServiceAccountView::new(),
        };
        let inputs = self.resolver.resolve(generator, account, &annotations)?;
        Ok(wish.resolution(generator, account, inputs))
    }

    /// The registry of the generator that is wished for, from the watch alone.
    pub fn known_registry(&self, wish: &Wish) -> Option<RegistryHost> {
        let generator = self.generators.known(&wish.namespace, wish.reference())?;
        self.resolver.registry(wish.referenced(&generator).ok()?).ok()
    }

    /// The same from the API server.
    pub async fn fetch_registry(&self, wish: &Wish) -> Result<RegistryHost, Problem> {
        let generators = &self.generators;
        let generator = generators.fetch(&wish.namespace, wish.reference()).await?;
        self.resolver.registry(wish.referenced(&generator)?)
    }

    /// Whether some generator could be for a registry of this name.
    pub fn may_serve(&self, registry: &str) -> bool {
        self.resolver.suffixes.permit(registry).is_ok()
    }

    fn known_annotations(&self, wish: &Wish, account: Account<'_>) -> Option<ServiceAccountView> {
        match account.service_account(&wish.namespace) {
            Some((namespace, name)) => self.accounts.known(namespace, name),
            None => Some(ServiceAccountView::new()),
        }
    }
}

// === impl Wish ===

impl Wish {
    fn reference(&self) -> Reference<'_> {
        Reference {
            kind: self.kind,
            name: &self.generator,
        }
    }

    fn referenced<'a>(&'a self, generator: &'a Generator) -> Result<Referenced<'a>, Problem> {
        let reference = self.reference();
        Ok(Referenced {
            reference,
            namespace: &self.namespace,
            spec: generator.spec(reference)?,
        })
    }

    fn resolution(&self, generator: Referenced<'_>, account: Account<'_>, inputs: Resolved) -> Resolution {
        let order = Order {
            namespace: self.namespace.clone(),
            name: name(self.reference(), account),
            generator: GeneratorReference {
                kind: self.kind.as_str().to_owned(),
                name: self.generator.clone(),
            },
            inputs_hash: inputs.fingerprint(),
            inputs,
        };
        Resolution {
            order,
            note: generator.several_identities(),
        }
    }
}
