//! The secret path: only API servers read it, in the webhook's registration, so only API servers are served.

use rustls::crypto::CryptoProvider;
use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};
use subtle::ConstantTimeEq;

/// What stands before the random text.
const PREFIX: &str = "/mutate/";
/// Hexadecimal digits: 160 bits.
const DIGITS: usize = 40;

/// A path that nobody guesses, without its prefix.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretPath([u8; DIGITS]);

/// The paths that are served right now. Clones share them.
#[derive(Clone, Default)]
pub struct Paths(Arc<RwLock<Vec<SecretPath>>>);

// === impl SecretPath ===

impl SecretPath {
    /// A new one, from the TLS provider's random numbers.
    pub fn generate() -> Result<Self, String> {
        let provider = CryptoProvider::get_default().ok_or("no TLS provider is installed")?;
        let mut random = [0; DIGITS / 2];
        let filled = provider.secure_random.fill(&mut random);
        filled.map_err(|_| "the system gives no random numbers")?;
        let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default() as u8;
        let mut digits = [0; DIGITS];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(random) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        Ok(Self(digits))
    }

    /// One that was kept; nothing unless it follows the grammar.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; DIGITS] = text.try_into().ok()?;
        let hexadecimal = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        digits.iter().all(hexadecimal).then_some(Self(digits))
    }

    /// The random text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The whole path of a URL.
    pub fn url_path(&self) -> String {
        format!("{PREFIX}{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretPath(..)")
    }
}

// === impl Paths ===

impl Paths {
    /// From now on, these alone.
    pub fn set(&self, paths: Vec<SecretPath>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = paths;
    }

    /// Whether a request for this path is served. How long it takes tells nothing of the paths: each is compared whole.
    pub fn accept(&self, path: &str) -> bool {
        let Some(text) = path.strip_prefix(PREFIX) else {
            return false;
        };
        let paths = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let equal = paths.iter().map(|path| path.0.ct_eq(text.as_bytes()));
        equal.fold(subtle::Choice::from(0), |any, one| any | one).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated() -> SecretPath {
        let _ = rustls::crypto::ring::default_provider().install_default();
        SecretPath::generate().unwrap()
    }

    #[test]
    fn a_path_is_random_follows_the_grammar_and_is_not_shown() {
        let (one, other) = (generated(), generated());
        assert_ne!(one, other);
        assert_eq!(SecretPath::parse(one.as_bytes()), Some(one.clone()));
        assert_eq!(format!("{one:?}"), "SecretPath(..)");
        let text = String::from_utf8(one.as_bytes().to_vec()).unwrap();
        for bad in [
            String::new(),
            text.to_uppercase() + "A",
            format!("{}G", &text[1..]),
            format!("{}A", &text[1..]),
            format!("{text}0"),
            text[1..].to_owned(),
        ] {
            assert_eq!(SecretPath::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn only_a_whole_path_of_these_is_accepted() {
        let (one, other, foreign) = (generated(), generated(), generated());
        let paths = Paths::default();
        assert!(!paths.accept(&one.url_path()), "none is known yet");
        paths.set(vec![one.clone(), other.clone()]);
        assert!(paths.accept(&one.url_path()) && paths.accept(&other.url_path()));
        let whole = one.url_path();
        for bad in [
            foreign.url_path(),
            "/".to_owned(),
            "/mutate".to_owned(),
            "/mutate/".to_owned(),
            format!("{whole}/"),
            format!("/{whole}"),
            whole[..whole.len() - 1].to_owned(),
            whole.replace("/mutate", "/MUTATE"),
        ] {
            assert!(!paths.accept(&bad), "{bad}");
        }
        paths.set(vec![other]);
        assert!(!paths.accept(&whole));
    }
}
