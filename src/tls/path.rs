//! The secret path. Only API servers can read it, in the MutatingWebhookConfiguration, so only they can call the
//! webhook.

use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use std::{fmt, sync::Arc};
use subtle::ConstantTimeEq;

/// Precedes the random digits in the URL.
const URL_PREFIX: &str = "/mutate/";
/// Hexadecimal digits: 160 bits.
const DIGITS: usize = 40;

/// A random path, without its prefix.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretPath([u8; DIGITS]);

impl SecretPath {
    /// Generates a path with the TLS provider's random number generator.
    pub fn generate() -> Result<Self, String> {
        let provider = CryptoProvider::get_default().ok_or("no TLS provider is installed")?;
        let mut random = [0; DIGITS / 2];
        let filled = provider.secure_random.fill(&mut random);
        filled.map_err(|_| "the random number generator failed")?;
        let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default() as u8;
        let mut digits = [0; DIGITS];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(random) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        Ok(Self(digits))
    }

    /// Parses a stored path. None if it does not have the form of a generated one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; DIGITS] = text.try_into().ok()?;
        let hexadecimal = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        digits.iter().all(hexadecimal).then_some(Self(digits))
    }

    /// The random digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path of the URL, with the prefix.
    pub fn url_path(&self) -> String {
        format!("{URL_PREFIX}{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretPath(..)")
    }
}

/// The paths that the listener accepts. Clones share them.
#[derive(Clone, Default)]
pub struct AcceptedPaths(Arc<RwLock<Vec<SecretPath>>>);

impl AcceptedPaths {
    /// Accepts these paths only.
    pub fn set(&self, paths: Vec<SecretPath>) {
        *self.0.write() = paths;
    }

    /// Whether a request for this path is accepted. The comparison takes the same time for every path of the right
    /// length, so its duration does not reveal an accepted path.
    pub fn accept(&self, path: &str) -> bool {
        let text = path.strip_prefix(URL_PREFIX).map(str::as_bytes);
        let Some(requested) = text.and_then(|text| <&[u8; DIGITS]>::try_from(text).ok()) else {
            return false;
        };
        let requested = words(requested);
        let paths = self.0.read();
        let equal = paths.iter().map(|path| words(&path.0).ct_eq(&requested));
        equal.fold(subtle::Choice::from(0), |any, one| any | one).into()
    }
}

/// The same bytes as machine words, which are faster to compare. Every admission does this.
fn words(digits: &[u8; DIGITS]) -> [u64; DIGITS / 8] {
    let mut words = [0; DIGITS / 8];
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
    fn a_generated_path_is_random_parses_again_and_is_not_printed() {
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
    fn only_a_complete_path_from_the_list_is_accepted() {
        let (one, other, unknown) = (generated(), generated(), generated());
        let paths = AcceptedPaths::default();
        assert!(!paths.accept(&one.url_path()), "no path is set yet");
        paths.set(vec![one.clone(), other.clone()]);
        assert!(paths.accept(&one.url_path()) && paths.accept(&other.url_path()));
        let whole = one.url_path();
        for bad in [
            unknown.url_path(),
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
