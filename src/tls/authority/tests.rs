use super::*;
use std::sync::Once;

const LIFETIME: Duration = Duration::from_secs(300);

fn terms() -> Terms {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    Terms::new(
        vec!["acr-pull-webhook.own.svc".to_owned(), "127.0.0.1".to_owned()],
        LIFETIME,
    )
    .unwrap()
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + Duration::from_secs(second)
}

/// Whether who trusts this bundle alone trusts what is served.
fn trusts(bundle: &str, served: &Issued) -> bool {
    bundle.contains(served.ca.trim())
}

#[test]
fn a_certificate_is_good_for_its_names_in_its_time_and_under_its_own_authority_alone() {
    let terms = terms();
    let issued = terms.issue(at(0)).unwrap();
    let pair = terms.check(&issued, at(0)).unwrap();
    assert_eq!(pair.ends, at(300));
    for (second, good) in [(1, true), (299, true), (301, false)] {
        assert_eq!(terms.check(&issued, at(second)).is_ok(), good, "{second}");
    }
    assert!(
        terms
            .check(&issued, at(0) - BACKDATED - Duration::from_secs(1))
            .is_err()
    );
    let others = Terms::new(vec!["other.own.svc".to_owned()], LIFETIME).unwrap();
    assert!(others.check(&issued, at(0)).is_err());

    let other = terms.issue(at(0)).unwrap();
    for spoilt in [
        Issued {
            ca: other.ca.clone(),
            ..issued.clone()
        },
        Issued {
            chain: other.chain.clone(),
            ..issued.clone()
        },
        Issued {
            key: other.key.clone(),
            ..issued.clone()
        },
        Issued {
            chain: String::new(),
            ..issued.clone()
        },
        Issued {
            chain: issued.chain[..200].to_owned(),
            ..issued.clone()
        },
        Issued {
            key: "nonsense".to_owned().into(),
            ..issued.clone()
        },
        Issued {
            ca: "nonsense".to_owned(),
            ..issued.clone()
        },
    ] {
        let error = terms.check(&spoilt, at(0)).unwrap_err();
        assert!(!error.contains("BEGIN"), "{error}");
    }
}

#[test]
fn what_is_kept_survives_the_secret() {
    let terms = terms();
    let kept = Kept::new(terms.issue(at(0)).unwrap()).prepared(terms.issue(at(1)).unwrap());
    for kept in [kept.clone(), kept.switched()] {
        let data = kept.to_data();
        let read = Kept::from_data(|key| data.get(key).map(Vec::as_slice)).unwrap();
        assert_eq!(read, kept);
    }
    assert!(Kept::from_data(|_| None).is_none());
    assert_eq!(
        format!("{:?}", Kept::new(terms.issue(at(0)).unwrap())),
        "Kept { .. }"
    );
}

/// API servers and replicas that learn of each change as late as the hold allows, or at once, over several lives.
#[test]
fn in_a_rotation_every_api_server_trusts_every_replica_at_every_moment() {
    let terms = terms();
    let lag = terms.hold().as_secs() - 1;
    let mut kept = Kept::new(terms.issue(at(0)).unwrap());
    // Since when each state has been there, and its bundle published with it.
    let mut states = vec![(0, kept.clone())];
    let mut steps = Vec::new();
    for second in 0..1500 {
        let since = states.last().unwrap().0;
        let pair = terms
            .check(&kept.current, at(second))
            .expect("what is served is good at every moment");
        let step = kept.step(&terms, &pair, Duration::from_secs(second - since), at(second));
        kept = match step {
            Step::Wait(wait) => {
                assert!(!wait.is_zero());
                kept
            }
            Step::Prepare => kept.prepared(terms.issue(at(second)).unwrap()),
            Step::Switch => kept.switched(),
            Step::Forget => kept.forgotten(),
        };
        if !matches!(step, Step::Wait(_)) {
            steps.push(step);
            states.push((second, kept.clone()));
        }
        // Whatever somebody may know who is late by any time up to the lag.
        let newest = states
            .iter()
            .rposition(|(since, _)| since + lag <= second)
            .unwrap_or(0);
        for (_, seen_by_replica) in &states[newest..] {
            for (_, seen_by_api_server) in &states[newest..] {
                let (bundle, served) = (seen_by_api_server.bundle(), &seen_by_replica.current);
                assert!(trusts(&bundle, served), "{second} s");
            }
        }
    }
    let cycle = [Step::Prepare, Step::Switch, Step::Forget];
    assert!(steps.len() >= 15, "{steps:?}");
    assert!(
        steps.iter().zip(cycle.iter().cycle()).all(|(a, b)| a == b),
        "{steps:?}"
    );
}

#[test]
fn names_that_are_none_are_refused() {
    for bad in ["", "a b", "*", "-x-.", "https://x"] {
        let refusal = Terms::new(vec![bad.to_owned()], LIFETIME).unwrap_err();
        assert!(refusal.starts_with("--tls-names"), "{refusal}");
    }
}
