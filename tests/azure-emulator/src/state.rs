//! What all listeners share.

use std::sync::{Arc, PoisonError, RwLock};

use crate::acr::upstream::Upstream;
use crate::entra::issuer_keys::IssuerKeys;
use crate::faults::Faults;
use crate::jwt::SigningKey;
use crate::log::{CredentialLog, RequestLog};
use crate::world::World;

pub(crate) struct State {
    world: RwLock<Arc<World>>,
    pub(crate) faults: Faults,
    pub(crate) log: Arc<RequestLog>,
    pub(crate) credentials: CredentialLog,
    pub(crate) keys: Keys,
    pub(crate) issuer_keys: IssuerKeys,
    pub(crate) upstream: Upstream,
}

/// The keys that tokens are signed with. They are public: what they sign is worth nothing outside of tests.
pub(crate) struct Keys {
    pub(crate) entra: SigningKey,
    pub(crate) acr: SigningKey,
}

// === impl State ===

impl State {
    pub(crate) fn new(world: World, keys: Keys) -> Self {
        let faults = Faults::default();
        faults.replace(&world.spec.faults);
        Self {
            world: RwLock::new(Arc::new(world)),
            faults,
            log: Arc::default(),
            credentials: CredentialLog::default(),
            keys,
            issuer_keys: IssuerKeys::default(),
            upstream: Upstream::default(),
        }
    }

    pub(crate) fn world(&self) -> Arc<World> {
        Arc::clone(&self.world.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another world in place, with its own faults; requests under way end in the old one.
    pub(crate) fn apply(&self, world: World) {
        self.faults.replace(&world.spec.faults);
        self.issuer_keys.forget();
        *self.world.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(world);
    }
}

// === impl Keys ===

impl Keys {
    pub(crate) fn built_in() -> Option<Self> {
        Some(Self {
            entra: SigningKey::from_pem("azure-emulator-entra", include_bytes!("../keys/entra.pem"))?,
            acr: SigningKey::from_pem("azure-emulator-acr", include_bytes!("../keys/acr.pem"))?,
        })
    }
}

impl World {
    /// Seconds since 1970, by this world's clock.
    pub(crate) fn now(&self) -> i64 {
        jiff::Timestamp::now().as_second() + self.spec.clock.offset
    }
}
