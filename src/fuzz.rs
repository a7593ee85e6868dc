//! Fuzz targets for every parser of untrusted bytes. `make fuzz` runs them with libFuzzer; the unit test below runs
//! each for a second. A target reports a fault by a panic.

use crate::{
    admission, deadline, generator, identity, jwt, names,
    pull_secret::ACRPullSecret,
    registry::{self, RegistrySuffixes, Scope},
    tls::CertificateAndKey,
    transport,
    watch::Item,
};
use k8s_openapi::api::core::v1::Pod;
use kube::core::{ObjectList, PartialObjectMeta};

/// A target, and its name, which is also the name of its folder in `fuzz/corpus`.
type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("review", review),
    ("timeout", |data| {
        text(data, |text| {
            let _ = deadline::Deadline::from_query(Some(text));
        })
    }),
    ("annotation", |data| {
        text(data, |text| drop(admission::parse_references(text)))
    }),
    ("label", |data| {
        text(data, |text| drop(admission::parse_default_reference(text)))
    }),
    ("scope", |data| text(data, scope)),
    ("registry", |data| text(data, registry)),
    ("namespaces", |data| {
        text(data, |text| drop(text.parse::<generator::NamespaceList>()))
    }),
    ("metadata", metadata),
    ("pull_secret", pull_secret),
    ("event", crate::upkeep::fuzz_event),
    ("entra", identity::fuzz_entra),
    ("managed_identity", identity::fuzz_managed_identity),
    ("acr", registry::fuzz),
    ("headers", |data| text(data, transport::fuzz)),
    ("jwt", |data| {
        text(data, |text| {
            drop(jwt::unverified_claims::<serde_json::Value>(text))
        })
    }),
    ("pem", pem),
];

/// Runs one target with one input.
///
/// # Panics
///
/// Panics if the target does not exist, or if it finds a fault.
#[allow(clippy::panic)]
pub fn run(target: &str, data: &[u8]) {
    match TARGETS.iter().find(|(name, _)| *name == target) {
        Some((_, run)) => run(data),
        None => panic!("{target} is not a fuzz target"),
    }
}

fn text(data: &[u8], parse: impl FnOnce(&str)) {
    if let Ok(text) = str::from_utf8(data) {
        parse(text);
    }
}

/// Parses a review, and serializes the response.
fn review(data: &[u8]) {
    let (uid, verdict) = match admission::parse(data) {
        Ok(request) => {
            let patch = admission::encoded_patch(&request.object, &["acr-pull-contoso-app"], None);
            let verdict = admission::Verdict::Patched {
                patch,
                pending: Vec::new(),
                warnings: Vec::new(),
            };
            (request.uid.to_string(), verdict)
        }
        Err((uid, problem)) => (uid.unwrap_or_default(), admission::Verdict::Denied(problem)),
    };
    let response = serde_json::to_string(&admission::AdmissionResponse::new(&uid, &verdict));
    assert!(
        response.is_ok_and(|response| response.len() < 16 * 1024),
        "the size of a response is limited"
    );
}

/// The text of a valid scope parses to the same scope.
fn scope(text: &str) {
    if let Ok(scope) = Scope::parse(text) {
        let printed = scope.to_string();
        assert_eq!(Scope::parse(&printed).ok(), Some(scope));
    }
}

/// A permitted registry is a host with the suffix, without any other part of a URL.
fn registry(text: &str) {
    let Ok(suffixes) = "azurecr.io".parse::<RegistrySuffixes>() else {
        return;
    };
    if let Ok(host) = suffixes.permit(text) {
        let host = host.as_str();
        assert!(
            host.ends_with(".azurecr.io") && names::is_dns_name(host),
            "{host}"
        );
    }
}

/// A list of objects and a single object, both with metadata only.
fn metadata(data: &[u8]) {
    let _ = serde_json::from_slice::<ObjectList<Item<PartialObjectMeta<Pod>>>>(data);
    let _ = serde_json::from_slice::<Item<PartialObjectMeta<Pod>>>(data);
}

/// An ACRPullSecret, and everything that is computed from its times.
fn pull_secret(data: &[u8]) {
    if let Ok(Item(Ok(object))) = serde_json::from_slice::<Item<ACRPullSecret>>(data) {
        crate::pull_secret::fuzz(&object);
        crate::upkeep::fuzz_pull_secret(&object);
    }
}

fn pem(data: &[u8]) {
    let (chain, key) = data.split_at(data.len() / 2);
    let _ = CertificateAndKey::parse(chain, key);
    let _ = CertificateAndKey::parse(data, data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        time::{Duration, Instant},
    };

    /// The time per target. `make fuzz` runs each target for longer, guided by code coverage.
    const TIME_PER_TARGET: Duration = Duration::from_secs(1);
    /// Texts that a mutation inserts.
    const FRAGMENTS: [&str; 14] = [
        "\"",
        "{}",
        "[]",
        ",",
        ":",
        "/",
        ".",
        "\\u0000",
        "-1",
        "1e999",
        "9999-12-31T23:59:59Z",
        "é",
        "\u{202e}",
        "\n",
    ];

    /// A generator of pseudo-random numbers (xorshift64) with a fixed seed, so that a failure can be reproduced.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % end.max(1) as u64) as usize
        }
    }

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let folder = format!("fuzz/corpus/{target}");
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{folder} is empty");
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
        let at = random.below(input.len() + 1);
        match random.below(6) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            1 => input.truncate(at),
            2 => drop(input.splice(at..at, FRAGMENTS[random.below(FRAGMENTS.len())].bytes())),
            3 => {
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            4 => {
                let to = (at + random.below(16)).min(input.len());
                input.drain(at..to);
            }
            _ => {
                let to = (at + random.below(64)).min(input.len());
                let piece = input[at..to].to_vec();
                input.splice(
                    at..at,
                    piece.iter().copied().cycle().take(piece.len() * random.below(8)),
                );
            }
        }
    }

    #[test]
    fn no_target_panics_on_its_corpus_or_on_mutations_of_it() {
        let mut random = Random(0x5eed);
        for (target, run) in TARGETS {
            let corpus = corpus(target);
            corpus.iter().for_each(|input| run(input));
            let end = Instant::now() + TIME_PER_TARGET;
            while Instant::now() < end {
                let mut input = corpus[random.below(corpus.len())].clone();
                for _ in 0..=random.below(4) {
                    let other = &corpus[random.below(corpus.len())];
                    mutate(&mut input, other, &mut random);
                }
                run(&input);
            }
        }
    }

    #[test]
    fn each_target_is_in_the_manifest_of_cargo_fuzz() {
        let manifest = fs::read_to_string("fuzz/Cargo.toml").unwrap();
        for (target, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        }
    }
}
