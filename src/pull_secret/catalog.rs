//! What one reference of a Pod asks for, by names alone, and its resolution to an order.

use super::{ACRPullSecret, AccountOf, GeneratorReference, Order, lately::Lately, name, recent::Recent};
use crate::{
    cluster::Cluster,
    events::Events,
    excluded::ExcludedNamespaces,
    generator::{
        ANNOTATIONS, Account, Epoch, Generator, Generators, Kind, Reference, Referenced, Resolved, Resolver,
        ServiceAccountView, ServiceAccounts,
    },
    kubernetes::is_subdomain,
    problem::{Problem, Reason},
    registry::RegistryHost,
    untrusted::UntrustedText,
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
    /// False where the Pods that caused a pull secret may run as any service account.
    knows_service_account: bool,
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
    refused: Lately<Wish>,
    /// By the same names.
    registries_refused: Lately<Wish>,
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
            refused: Lately::default(),
            registries_refused: Lately::default(),
        }
    }

    /// Resolves a wish. What a watch has not seen yet, be it missing or only wrong as we know it,
    /// is looked up once before the Pod is refused for it.
    pub async fn resolve(&self, wish: &Wish) -> Result<Resolution, Problem> {
        // Whoever issues comes by here, be it for a Pod that is admitted or for one that runs.
        self.excluded().check_pod(wish.namespace())?;
        let epoch = self.epoch.now();
        if let Some(resolution) = self.recent.get(wish, epoch) {
            return Ok(resolution);
        }
        if let Some(known) = self.generators.known(wish.namespace(), wish.reference())
            && let Ok(generator) = wish.referenced(&known)
            && let Ok(account) = self.account(wish, generator)
            && let Some(annotations) = self.known_annotations(wish, account)
            && let Ok(inputs) = self.resolver.resolve(generator, account, &annotations)
        {
            let resolution = wish.resolution(generator, account, inputs);
            self.recent.put(wish, &resolution, epoch);
            return Ok(resolution);
        }
        if let Some(problem) = self.refused.get(wish, epoch) {
            return Err(problem);
        }
        // Apart, as it is large: each admission would carry it along.
        let found = Box::pin(self.look_up(wish)).await;
        found.inspect_err(|problem| self.refused.put(wish, problem, epoch))
    }

    /// Resolves a wish by what the API server has, whatever the watches show.
    pub async fn look_up(&self, wish: &Wish) -> Result<Resolution, Problem> {
        let found = self.generators.fetch(wish.namespace(), wish.reference()).await?;
        let generator = wish.referenced(&found)?;
        let account = self.account(wish, generator)?;
        let annotations = match account.service_account(wish.namespace()) {
            Some((namespace, name)) => self.accounts.fetch(namespace, name).await?,
            None => ServiceAccountView::new(),
        };
        let inputs = self.resolver.resolve(generator, account, &annotations)?;
        Ok(wish.resolution(generator, account, inputs))
    }

    /// The namespaces whose Pods get no pull secret.
    pub fn excluded(&self) -> &ExcludedNamespaces {
        &self.resolver.excluded
    }

    /// Tells of a problem on the generator, where that is at fault: who wrote it may never see the Pods.
    pub fn blame(&self, wish: &Wish, problem: &Problem) {
        if problem.reason.concerns_generator()
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
        let epoch = self.epoch.now();
        if let Some(problem) = self.registries_refused.get(wish, epoch) {
            return Err(problem);
        }
        let found = async {
            let generators = &self.generators;
            let generator = generators.fetch(wish.namespace(), wish.reference()).await?;
            self.resolver.registry(wish.referenced(&generator)?)
        };
        let found = found.await;
        found.inspect_err(|problem| self.registries_refused.put(wish, problem, epoch))
    }

    /// Whether some generator could be for a registry of this name.
    pub fn may_serve(&self, registry: &str) -> bool {
        self.resolver.suffixes.permit(registry).is_ok()
    }

    /// Whose service account is used. A pull secret that was made for the generator's own is not made anew for a service
    /// account that nobody named.
    fn account<'a>(&self, wish: &'a Wish, generator: Referenced<'a>) -> Result<Account<'a>, Problem> {
        match self.resolver.account(generator, wish.service_account())? {
            Account::Pods(_) if !wish.knows_service_account => Err(Problem::new(
                Reason::GeneratorInvalid,
                format!(
                    "{} uses the service accounts of Pods now, and this pull secret was made for another identity: it cannot                      be renewed; create the Pods that name it again, they get pull secrets of their own",
                    generator.reference
                ),
            )),
            account => Ok(account),
        }
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
            knows_service_account: true,
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
                    format!(
                        "{} is not a kind of generator that is served here",
                        UntrustedText::quoted(kind)
                    ),
                )
            })?;
        let namespace = owner.metadata.namespace.as_deref().unwrap_or_default();
        let (account, whose) = (&owner.spec.service_account_name, owner.spec.service_account_of);
        // Whoever may write an ACRPullSecret wrote these, and they go into paths and commands.
        let names = [Some(name.as_str()), account.as_deref()];
        if let Some(bad) = names.into_iter().flatten().find(|name| !is_subdomain(name)) {
            return Err(Problem::new(
                Reason::GeneratorInvalid,
                format!(
                    "{} in its spec is not the name of an object",
                    UntrustedText::quoted(bad)
                ),
            ));
        }
        Ok(Self {
            // Objects of before that do not say whose it is are taken for the more frequent case.
            knows_service_account: account.is_some() && whose != Some(AccountOf::Generator),
            ..Self::new(namespace, Reference { kind, name }, account.as_deref())
        })
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
            spec: generator.spec(reference, self.namespace())?,
        })
    }

    fn resolution(&self, generator: Referenced<'_>, account: Account<'_>, inputs: Resolved) -> Resolution {
        let reference = self.reference();
        let generator_reference = GeneratorReference {
            kind: reference.kind.as_str().to_owned(),
            name: reference.name.to_owned(),
        };
        let mut order = Order::new(
            self.namespace(),
            name(reference, account),
            generator_reference,
            inputs,
        );
        order.account_of = match account {
            Account::Pods(_) => Some(AccountOf::Pod),
            Account::Generators { .. } => Some(AccountOf::Generator),
            Account::None => None,
        };
        Resolution {
            order: Arc::new(order),
            note: generator.several_identities(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull_secret::ACRPullSecretSpec;

    #[test]
    fn what_somebody_wrote_into_a_pull_secrets_spec_is_a_name_or_refused() {
        let wish = |kind: &str, name: &str, service_account: Option<&str>| {
            let generator = GeneratorReference {
                kind: kind.to_owned(),
                name: name.to_owned(),
            };
            let spec = ACRPullSecretSpec {
                generator,
                service_account_name: service_account.map(str::to_owned),
                service_account_of: None,
                service_account_namespace: None,
            };
            Wish::of(&ACRPullSecret::new("acr-pull-x", spec))
        };
        let known = Kind::AccessToken.as_str();
        assert!(wish(known, "contoso", None).is_ok());
        assert!(wish(known, "contoso", Some("app")).is_ok());
        for (kind, name, account) in [
            ("Secret", "contoso", None),
            (known, "../../secrets/x", None),
            (known, "x'; touch /tmp/pwned; '", None),
            (known, "contoso", Some("app?x=1")),
            (known, "contoso", Some("")),
        ] {
            let problem = wish(kind, name, account).unwrap_err();
            assert_eq!(problem.reason, Reason::GeneratorInvalid, "{problem}");
        }
    }
}
