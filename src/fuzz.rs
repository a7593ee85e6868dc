//! Every parser of bytes that strangers choose, each as a function that a fuzzer drives: `make fuzz` by libFuzzer, the unit
//! test below for a second each. A target fails by a panic.

use crate::{
    admission, deadline, generator, identity, jwt,
    pull_secret::ACRPullSecret,
    registry::{self, RegistrySuffixes, Scope},
    tls::ServingCertificate,
    transport,
    watch::Item,
};
use k8s_openapi::api::core::v1::Pod;
use kube::core::{ObjectList, PartialObjectMeta};

/// A target, by its name and the name of its folder in `fuzz/corpus`.
type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("review", review),
    ("timeout", |data| {
        text(data, |text| {
            let _ = deadline::Deadline::from_query(Some(text));
        })
    }),
    ("annotation", |data| {
        text(data, |text| drop(admission::references(text)))
    }),
    ("label", |data| {
        text(data, |text| drop(admission::default_reference(text)))
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
        text(data, |text| drop(jwt::claims::<serde_json::Value>(text)))
    }),
    ("pem", pem),
];

/// Runs one target with one input.
///
/// # Panics
///
/// Where there is no such target, and where the target has found a fault.
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

/// A review that is read is answered too.
fn review(data: &[u8]) {
    let (uid, verdict) = match admission::parse(data) {
        Ok(request) => {
            let patch = admission::patch(&request.object, &["acr-pull-contoso-app"]);
            let verdict = admission::Verdict::Patched {
                patch,
                pending: Vec::new(),
                notes: Vec::new(),
            };
            (request.uid.into_owned(), verdict)
        }
        Err((uid, problem)) => (uid.unwrap_or_default(), admission::Verdict::Denied(problem)),
    };
    let answer = serde_json::to_string(&admission::Answer::new(&uid, &verdict));
    assert!(
        answer.is_ok_and(|answer| answer.len() < 16 * 1024),
        "an answer is bounded"
    );
}

/// What parses is printed as it is parsed again.
fn scope(text: &str) {
    if let Ok(scope) = Scope::parse(text) {
        let printed = scope.to_string();
        assert_eq!(Scope::parse(&printed).ok(), Some(scope));
    }
}

/// What is permitted is a host under the suffix, and nothing else that an URL could hold.
fn registry(text: &str) {
    let Ok(suffixes) = "azurecr.io".parse::<RegistrySuffixes>() else {
        return;
    };
    if let Ok(host) = suffixes.permit(text) {
        let host = host.as_str();
        assert!(
            host.ends_with(".azurecr.io") && registry::is_dns_name(host),
            "{host}"
        );
    }
}

/// A list of objects with metadata alone.
fn metadata(data: &[u8]) {
    let _ = serde_json::from_slice::<ObjectList<Item<PartialObjectMeta<Pod>>>>(data);
    let _ = serde_json::from_slice::<Item<PartialObjectMeta<Pod>>>(data);
}

/// An object of ours, and all that is computed of its times.
fn pull_secret(data: &[u8]) {
    if let Ok(Item(Ok(object))) = serde_json::from_slice::<Item<ACRPullSecret>>(data) {
        crate::pull_secret::fuzz(&object);
        crate::upkeep::fuzz_pull_secret(&object);
    }
}

fn pem(data: &[u8]) {
    let (chain, key) = data.split_at(data.len() / 2);
    let _ = ServingCertificate::parse(chain, key);
    let _ = ServingCertificate::parse(data, data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        time::{Duration, Instant},
    };

    /// How long each target is driven here; `make fuzz` drives it longer, and knows which code an input has reached.
    const EACH: Duration = Duration::from_secs(1);
    const PIECES: [&str; 14] = [
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

    /// Numbers that are always the same (xorshift64): a test that fails fails again.
    struct Numbers(u64);

    impl Numbers {
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
        assert!(!files.is_empty(), "{folder} has an input");
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    fn mutate(input: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
        let at = numbers.below(input.len() + 1);
        match numbers.below(6) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << numbers.below(8);
                }
            }
            1 => input.truncate(at),
            2 => drop(input.splice(at..at, PIECES[numbers.below(PIECES.len())].bytes())),
            3 => {
                let from = numbers.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            4 => {
                let to = (at + numbers.below(16)).min(input.len());
                input.drain(at..to);
            }
            _ => {
                let to = (at + numbers.below(64)).min(input.len());
                let piece = input[at..to].to_vec();
                input.splice(
                    at..at,
                    piece.iter().copied().cycle().take(piece.len() * numbers.below(8)),
                );
            }
        }
    }

    /// Each target bears its corpus, and for a second what is made of it at random.
    #[test]
    fn each_target_bears_its_corpus_and_what_is_made_of_it() {
        let mut numbers = Numbers(0x5eed);
        for (target, run) in TARGETS {
            let corpus = corpus(target);
            corpus.iter().for_each(|input| run(input));
            let end = Instant::now() + EACH;
            while Instant::now() < end {
                let mut input = corpus[numbers.below(corpus.len())].clone();
                for _ in 0..=numbers.below(4) {
                    let other = &corpus[numbers.below(corpus.len())];
                    mutate(&mut input, other, &mut numbers);
                }
                run(&input);
            }
        }
    }

    #[test]
    fn each_target_is_one_of_cargo_fuzz_too() {
        let manifest = fs::read_to_string("fuzz/Cargo.toml").unwrap();
        for (target, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        }
    }
}
