//! The state that all listeners share.

use crate::{
    acr::upstream::Upstream,
    cloud,
    faults::Faults,
    jwt::SigningKey,
    log::{CredentialLog, RequestLog},
    world::World,
};
use parking_lot::RwLock;
use std::sync::Arc;

/// The emulated Azure.
pub struct Azure {
    world: RwLock<Arc<World>>,
    pub faults: Faults,
    pub log: Arc<RequestLog>,
    pub credentials: CredentialLog,
    pub keys: Keys,
    pub upstream: Upstream,
}

impl Azure {
    pub fn new(world: World, keys: Keys) -> Self {
        let faults = Faults::default();
        faults.replace(&world.spec.faults);
        Self {
            world: RwLock::new(Arc::new(world)),
            faults,
            log: Arc::default(),
            credentials: CredentialLog::default(),
            keys,
            upstream: Upstream::default(),
        }
    }

    pub fn world(&self) -> Arc<World> {
        self.world.read().clone()
    }

    /// Replaces the world and the faults. Requests in progress end in the previous world.
    pub fn apply(&self, world: World) {
        self.faults.replace(&world.spec.faults);
        *self.world.write() = Arc::new(world);
    }

    /// Whether Azure has this host: a login host, a possible name of a registry, or a registry of the world.
    pub fn has_host(&self, host: &str) -> bool {
        let world = self.world();
        world.is_login_host(host) || cloud::is_registry_name(host) || world.registry(host).is_some()
    }
}

/// The keys that sign tokens. They are public, so the tokens are worthless outside of tests.
pub struct Keys {
    pub entra: SigningKey,
    pub acr: SigningKey,
}

impl Keys {
    /// `None` only if a built-in key cannot be read.
    pub fn built_in() -> Option<Self> {
        Some(Self {
            entra: SigningKey::from_pem("azure-emulator-entra", include_bytes!("../keys/entra.pem"))?,
            acr: SigningKey::from_pem("azure-emulator-acr", include_bytes!("../keys/acr.pem"))?,
        })
    }
}
