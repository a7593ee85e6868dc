//! The secret path. API servers read it in the webhook configuration; requests for any other path are refused.

use rustls::crypto::CryptoProvider;
use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};
use subtle::ConstantTimeEq;

/// The fixed part of the path, before the random digits.
const PREFIX: &str = "/mutate/";
/// 40 hexadecimal digits hold 160 random bits.
const HEX_DIGITS: usize = 40;

/// The random digits of an unguessable path, without its prefix.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretPath([u8; HEX_DIGITS]);

/// The paths that the listener accepts. Clones share them.
#[derive(Clone, Default)]
pub struct SecretPaths(Arc<RwLock<Vec<SecretPath>>>);

impl SecretPath {
    /// Generates a path from the TLS provider's random numbers.
    pub fn generate() -> Result<Self, String> {
        let provider = CryptoProvider::get_default().ok_or("no TLS provider is installed")?;
        let mut random = [0; HEX_DIGITS / 2];
        let filled = provider.secure_random.fill(&mut random);
        filled.map_err(|_| "the system did not provide random numbers")?;
        let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default() as u8;
        let mut digits = [0; HEX_DIGITS];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(random) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        Ok(Self(digits))
    }

    /// Parses a stored path. Returns `None` unless it has 40 lower-case hexadecimal digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; HEX_DIGITS] = text.try_into().ok()?;
        let hexadecimal = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        digits.iter().all(hexadecimal).then_some(Self(digits))
    }

    /// The random digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The URL path: prefix and digits.
    pub fn url_path(&self) -> String {
        format!("{PREFIX}{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretPath(..)")
    }
}

impl SecretPaths {
    /// Replaces the accepted paths.
    pub fn set(&self, paths: Vec<SecretPath>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = paths;
    }

    /// Whether the listener accepts a request for this path. Each comparison takes constant time, so timing reveals nothing
    /// about the accepted paths.
    pub fn accept(&self, path: &str) -> bool {
        let text = path.strip_prefix(PREFIX).map(str::as_bytes);
        let Some(asked) = text.and_then(|text| <&[u8; HEX_DIGITS]>::try_from(text).ok()) else {
            return false;
        };
        let asked = words(asked);
        let paths = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let equal = paths.iter().map(|path| words(&path.0).ct_eq(&asked));
        equal.fold(subtle::Choice::from(0), |any, one| any | one).into()
    }
}

/// The digits as machine words. Comparing words is faster than comparing bytes, and each admission does it.
fn words(digits: &[u8; HEX_DIGITS]) -> [u64; HEX_DIGITS / 8] {
    let mut words = [0; HEX_DIGITS / 8];
    for (word, bytes) in words.iter_mut().zip(digits.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated() -> SecretPath {
        let _ = rustls::crypto::ring::default_provider().install_default();
        SecretPath::generate().unwrap()
    }

    #[test]
    fn a_path_is_random_and_well_formed_and_debug_output_hides_it() {
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
    fn only_an_exact_match_of_a_known_path_is_accepted() {
        let (one, other, foreign) = (generated(), generated(), generated());
        let paths = SecretPaths::default();
        assert!(!paths.accept(&one.url_path()), "no path is known yet");
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
