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

/// Whether who was told of this state trusts what is served in the other, and asks it for a path that it accepts.
fn reaches(told: &Kept, serving: &Kept) -> bool {
    let trusts = match (&told.bundle(), &serving.current.signed) {
        (Some(bundle), Some(signed)) => bundle.contains(signed.ca.trim()),
        (told, serving) => told.is_none() && serving.is_none(),
    };
    trusts && serving.accepted_paths().contains(told.published_path())
}

fn signed(issued: &Issued) -> Signed {
    issued.signed.clone().unwrap()
}

fn data_of(kept: &Kept) -> impl Fn(&str) -> Option<&'static [u8]> + use<> {
    let data = kept.to_data();
    move |key| data.get(key).map(|value| &*value.clone().leak())
}

#[test]
fn a_certificate_is_good_for_its_names_in_its_time_and_under_its_own_authority_alone() {
    let terms = terms();
    let issued = terms.issue(None, at(0)).unwrap();
    let pair = terms.check(&issued, at(0)).unwrap().unwrap();
    assert_eq!(pair.ends, at(300));
    for (second, good) in [(1, true), (299, true), (301, false)] {
        assert_eq!(terms.check(&issued, at(second)).is_ok(), good, "{second}");
    }
    assert!(
        terms
            .check(&issued, at(0) - BACKDATED - Duration::from_secs(1))
            .is_err()
    );

    let other = signed(&terms.issue(None, at(0)).unwrap());
    let good = signed(&issued);
    for spoilt in [
        Signed {
            ca: other.ca.clone(),
            ..good.clone()
        },
        Signed {
            chain: other.chain.clone(),
            ..good.clone()
        },
        Signed {
            key: other.key.clone(),
            ..good.clone()
        },
        Signed {
            chain: String::new(),
            ..good.clone()
        },
        Signed {
            chain: good.chain[..200].to_owned(),
            ..good.clone()
        },
        Signed {
            key: "nonsense".to_owned().into(),
            ..good.clone()
        },
        Signed {
            ca: "nonsense".to_owned(),
            ..good.clone()
        },
    ] {
        let spoilt = Issued {
            signed: Some(spoilt),
            ..issued.clone()
        };
        let error = terms.check(&spoilt, at(0)).unwrap_err();
        assert!(!error.contains("BEGIN"), "{error}");
    }
}

#[test]
fn what_is_kept_survives_the_secret() {
    let of_files = Terms::of_files(LIFETIME);
    for terms in [terms(), of_files.clone()] {
        let kept = Kept::new(terms.issue(None, at(0)).unwrap()).prepared(terms.issue(None, at(1)).unwrap());
        for kept in [kept.clone(), kept.switched()] {
            let data = kept.to_data();
            assert!(data.keys().any(|key| key.ends_with("path") && key != "path"));
            assert_eq!(Kept::from_data(&terms, data_of(&kept)).unwrap(), kept);
        }
        assert!(Kept::from_data(&terms, |_| None).is_none());
        assert_eq!(
            format!("{:?}", Kept::new(terms.issue(None, at(0)).unwrap())),
            "Kept { .. }"
        );
    }
    let data = Kept::new(of_files.issue(None, at(0)).unwrap()).to_data();
    assert!(data.keys().eq(["path"]), "no certificate is made for files");
}

#[test]
fn a_secret_that_lacks_a_half_is_completed_and_a_spoilt_path_is_replaced() {
    let (terms, of_files) = (terms(), Terms::of_files(LIFETIME));
    let kept = Kept::new(terms.issue(None, at(0)).unwrap());
    let complete = |terms: &Terms, hide: &[&str]| {
        let get = data_of(&kept);
        let shown = |key: &str| get(key).filter(|_| !hide.contains(&key));
        assert!(Kept::from_data(terms, shown).is_none());
        Kept::new(terms.complete(terms.issue(None, at(1)).unwrap(), shown, at(1)))
    };
    // One from before there were paths.
    let completed = complete(&terms, &["path"]);
    assert_eq!(completed.bundle(), kept.bundle());
    assert_ne!(completed.published_path(), kept.published_path());
    // One of a webhook whose certificate was in files.
    let completed = complete(&terms, &["ca.crt", "tls.crt", "tls.key"]);
    assert_ne!(completed.bundle(), kept.bundle());
    assert_eq!(completed.published_path(), kept.published_path());
    // For files, a certificate is none of its business.
    let read = Kept::from_data(&of_files, data_of(&kept)).unwrap();
    assert_eq!(read.published_path(), kept.published_path());
    assert_eq!(read.bundle(), None);

    for bad in ["", "/mutate/x", "0123", &"A".repeat(40), &"../".repeat(20)] {
        let get = data_of(&kept);
        let bytes: &'static [u8] = bad.to_owned().leak().as_bytes();
        let spoilt = |key: &str| match key {
            "path" => Some(bytes),
            key => get(key),
        };
        assert!(Kept::from_data(&terms, spoilt).is_none(), "{bad}");
        let completed = terms.complete(terms.issue(None, at(1)).unwrap(), spoilt, at(1));
        assert_ne!(&completed.path, kept.published_path());
    }
}

#[test]
fn the_path_of_a_webhook_whose_certificate_is_in_files_stays_until_its_secret_is_deleted() {
    let terms = Terms::of_files(LIFETIME);
    let kept = Kept::new(terms.issue(None, at(0)).unwrap());
    let years = Duration::from_secs(10 * 365 * 86400);
    assert_eq!(kept.step(&terms, None, years, at(0)), Step::Wait(Duration::MAX));
    // As the keeper does then.
    let prepared = kept.clone().prepared(terms.issue(None, at(0)).unwrap());
    assert!(reaches(&kept, &prepared) && reaches(&prepared, &prepared));
    let early = terms.hold() - Duration::from_secs(1);
    assert!(matches!(prepared.step(&terms, None, early, at(0)), Step::Wait(_)));
    assert_eq!(prepared.step(&terms, None, terms.hold(), at(0)), Step::Switch);
    let switched = prepared.clone().switched();
    assert_ne!(switched.published_path(), kept.published_path());
    assert!(reaches(&prepared, &switched) && reaches(&switched, &prepared));
    assert_eq!(switched.step(&terms, None, terms.hold(), at(0)), Step::Forget);
    let forgotten = switched.clone().forgotten();
    assert!(reaches(&switched, &forgotten));
    assert!(
        !reaches(&kept, &forgotten),
        "whoever deletes a Secret may have a reason"
    );
}

/// API servers and replicas that learn of each change as late as the hold allows, or at once, over several lives.
#[test]
fn in_a_rotation_every_api_server_reaches_every_replica_at_every_moment() {
    let terms = terms();
    let lag = terms.hold().as_secs() - 1;
    let mut kept = Kept::new(terms.issue(None, at(0)).unwrap());
    // Since when each state has been there, and its bundle published with it.
    let mut states = vec![(0, kept.clone())];
    let mut steps = Vec::new();
    for second in 0..1500 {
        let since = states.last().unwrap().0;
        let pair = terms
            .check(&kept.current, at(second))
            .expect("what is served is good at every moment")
            .unwrap();
        let step = kept.step(
            &terms,
            Some(&pair),
            Duration::from_secs(second - since),
            at(second),
        );
        kept = match step {
            Step::Wait(wait) => {
                assert!(!wait.is_zero());
                kept
            }
            Step::Prepare => kept.prepared(terms.issue(None, at(second)).unwrap()),
            Step::Switch => kept.switched(),
            Step::Forget => kept.forgotten(),
        };
        assert!(
            kept.accepted_paths().len() <= 2,
            "a path is not served for longer than it is needed"
        );
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
                assert!(reaches(seen_by_api_server, seen_by_replica), "{second} s");
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

/// Replicas of two versions of a Deployment, which were started with different --tls-names.
#[test]
fn a_certificate_for_other_names_is_served_on_and_replaced_by_one_for_both() {
    let before = terms();
    let after = Terms::new(vec!["other.own.svc".to_owned()], LIFETIME).unwrap();
    let served = |terms: &Terms, kept: &Kept| terms.check(&kept.current, at(1)).unwrap().unwrap();
    let kept = Kept::new(before.issue(None, at(0)).unwrap());
    let pair = served(&after, &kept);
    assert!(matches!(
        kept.step(&before, Some(&pair), Duration::MAX, at(1)),
        Step::Wait(_)
    ));
    assert_eq!(
        kept.step(&after, Some(&pair), Duration::ZERO, at(1)),
        Step::Prepare
    );
    let kept = kept.prepared(after.issue(Some(&pair), at(1)).unwrap());
    assert_eq!(kept.clone().without_spoilt_next(&before, at(1)), kept);
    let kept = kept.switched().forgotten();
    let pair = served(&before, &kept);
    assert_eq!(
        pair.names,
        ["other.own.svc", "acr-pull-webhook.own.svc", "127.0.0.1"]
    );
    for terms in [&before, &after] {
        let step = kept.step(terms, Some(&pair), Duration::MAX, at(1));
        assert!(
            matches!(step, Step::Wait(_)),
            "neither replaces the other's: {step:?}"
        );
    }
    // Later, when no replica knows the names of before.
    let next = after.issue(Some(&pair), at(200)).unwrap();
    assert_eq!(
        after.check(&next, at(200)).unwrap().unwrap().names,
        ["other.own.svc"]
    );
}

#[test]
fn names_that_are_none_are_refused() {
    for bad in ["", "a b", "*", "-x-.", "https://x"] {
        let refusal = Terms::new(vec![bad.to_owned()], LIFETIME).unwrap_err();
        assert!(refusal.starts_with("--tls-names"), "{refusal}");
    }
}
