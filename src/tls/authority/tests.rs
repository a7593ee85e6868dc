use super::*;
use std::sync::Once;

const LIFETIME: Duration = Duration::from_secs(300);

fn test_spec() -> CertificateSpec {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    CertificateSpec::new(
        vec!["acr-pull-webhook.own.svc".to_owned(), "127.0.0.1".to_owned()],
        LIFETIME,
    )
    .unwrap()
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + Duration::from_secs(second)
}

/// Whether an API server with the bundle and path of one state can call a replica in the other state.
fn reaches(published: &CertificateState, serving: &CertificateState) -> bool {
    let trusts = match (&published.bundle(), &serving.current.signed) {
        (Some(bundle), Some(signed)) => bundle.contains(signed.ca.trim()),
        (bundle, signed) => bundle.is_none() && signed.is_none(),
    };
    trusts && serving.accepted_paths().contains(published.published_path())
}

fn signed(issued: &Generation) -> SignedCertificate {
    issued.signed.clone().unwrap()
}

fn data_of(state: &CertificateState) -> impl Fn(&str) -> Option<&'static [u8]> + use<> {
    let data = state.to_data();
    move |key| data.get(key).map(|value| &*value.clone().leak())
}

#[test]
fn a_certificate_is_valid_only_for_its_lifetime_and_under_its_own_ca() {
    let spec = test_spec();
    let issued = spec.issue(None, at(0)).unwrap();
    let pair = spec.check(&issued, at(0)).unwrap().unwrap();
    assert_eq!(pair.not_after, at(300));
    for (second, good) in [(1, true), (299, true), (301, false)] {
        assert_eq!(spec.check(&issued, at(second)).is_ok(), good, "{second}");
    }
    assert!(
        spec.check(&issued, at(0) - NOT_BEFORE_MARGIN - Duration::from_secs(1))
            .is_err()
    );

    let other = signed(&spec.issue(None, at(0)).unwrap());
    let good = signed(&issued);
    for invalid in [
        SignedCertificate {
            ca: other.ca.clone(),
            ..good.clone()
        },
        SignedCertificate {
            chain: other.chain.clone(),
            ..good.clone()
        },
        SignedCertificate {
            key: other.key.clone(),
            ..good.clone()
        },
        SignedCertificate {
            chain: String::new(),
            ..good.clone()
        },
        SignedCertificate {
            chain: good.chain[..200].to_owned(),
            ..good.clone()
        },
        SignedCertificate {
            key: "nonsense".to_owned().into(),
            ..good.clone()
        },
        SignedCertificate {
            ca: "nonsense".to_owned(),
            ..good.clone()
        },
    ] {
        let invalid = Generation {
            signed: Some(invalid),
            ..issued.clone()
        };
        let error = spec.check(&invalid, at(0)).unwrap_err();
        assert!(!error.contains("BEGIN"), "{error}");
    }
}

#[test]
fn what_is_kept_survives_the_secret() {
    let for_files = CertificateSpec::for_files(LIFETIME);
    for spec in [test_spec(), for_files.clone()] {
        let state = CertificateState::new(spec.issue(None, at(0)).unwrap())
            .with_next(spec.issue(None, at(1)).unwrap());
        for state in [state.clone(), state.switched()] {
            let data = state.to_data();
            assert!(data.keys().any(|key| key.ends_with("path") && key != "path"));
            assert_eq!(
                CertificateState::from_data(&spec, data_of(&state)).unwrap(),
                state
            );
        }
        assert!(CertificateState::from_data(&spec, |_| None).is_none());
        assert_eq!(
            format!("{:?}", CertificateState::new(spec.issue(None, at(0)).unwrap())),
            "CertificateState { .. }"
        );
    }
    let data = CertificateState::new(for_files.issue(None, at(0)).unwrap()).to_data();
    assert!(data.keys().eq(["path"]), "no certificate is made for files");
}

#[test]
fn an_incomplete_secret_is_completed_and_an_invalid_path_replaced() {
    let (spec, for_files) = (test_spec(), CertificateSpec::for_files(LIFETIME));
    let state = CertificateState::new(spec.issue(None, at(0)).unwrap());
    let fill_missing = |spec: &CertificateSpec, hide: &[&str]| {
        let get = data_of(&state);
        let shown = |key: &str| get(key).filter(|_| !hide.contains(&key));
        assert!(CertificateState::from_data(spec, shown).is_none());
        CertificateState::new(spec.fill_missing(spec.issue(None, at(1)).unwrap(), shown, at(1)))
    };
    // One from before there were paths.
    let completed = fill_missing(&spec, &["path"]);
    assert_eq!(completed.bundle(), state.bundle());
    assert_ne!(completed.published_path(), state.published_path());
    // One of a webhook whose certificate was in files.
    let completed = fill_missing(&spec, &["ca.crt", "tls.crt", "tls.key"]);
    assert_ne!(completed.bundle(), state.bundle());
    assert_eq!(completed.published_path(), state.published_path());
    // For files, a certificate is none of its business.
    let read = CertificateState::from_data(&for_files, data_of(&state)).unwrap();
    assert_eq!(read.published_path(), state.published_path());
    assert_eq!(read.bundle(), None);

    for bad in ["", "/mutate/x", "0123", &"A".repeat(40), &"../".repeat(20)] {
        let get = data_of(&state);
        let bytes: &'static [u8] = bad.to_owned().leak().as_bytes();
        let invalid = |key: &str| match key {
            "path" => Some(bytes),
            key => get(key),
        };
        assert!(CertificateState::from_data(&spec, invalid).is_none(), "{bad}");
        let completed = spec.fill_missing(spec.issue(None, at(1)).unwrap(), invalid, at(1));
        assert_ne!(&completed.path, state.published_path());
    }
}

#[test]
fn with_certificate_files_the_path_lasts_until_its_secret_is_deleted() {
    let spec = CertificateSpec::for_files(LIFETIME);
    let state = CertificateState::new(spec.issue(None, at(0)).unwrap());
    let years = Duration::from_secs(10 * 365 * 86400);
    assert_eq!(state.step(&spec, None, years, at(0)), Step::Wait(Duration::MAX));
    // As the manager does then.
    let with_next = state.clone().with_next(spec.issue(None, at(0)).unwrap());
    assert!(reaches(&state, &with_next) && reaches(&with_next, &with_next));
    let early = spec.propagation_delay() - Duration::from_secs(1);
    assert!(matches!(with_next.step(&spec, None, early, at(0)), Step::Wait(_)));
    assert_eq!(
        with_next.step(&spec, None, spec.propagation_delay(), at(0)),
        Step::Switch
    );
    let switched = with_next.clone().switched();
    assert_ne!(switched.published_path(), state.published_path());
    assert!(reaches(&with_next, &switched) && reaches(&switched, &with_next));
    assert_eq!(
        switched.step(&spec, None, spec.propagation_delay(), at(0)),
        Step::DropPrevious
    );
    let without_previous = switched.clone().without_previous();
    assert!(reaches(&switched, &without_previous));
    assert!(
        !reaches(&state, &without_previous),
        "a deleted Secret revokes its path"
    );
}

/// API servers and replicas that learn of each change after at most the propagation delay, over several lifetimes.
#[test]
fn during_a_rotation_every_api_server_reaches_every_replica() {
    let spec = test_spec();
    let lag = spec.propagation_delay().as_secs() - 1;
    let mut state = CertificateState::new(spec.issue(None, at(0)).unwrap());
    // Since when each state has been there, and its bundle published with it.
    let mut states = vec![(0, state.clone())];
    let mut steps = Vec::new();
    for second in 0..1500 {
        let since = states.last().unwrap().0;
        let pair = spec
            .check(&state.current, at(second))
            .expect("what is served is good at every moment")
            .unwrap();
        let step = state.step(
            &spec,
            Some(&pair),
            Duration::from_secs(second - since),
            at(second),
        );
        state = match step {
            Step::Wait(wait) => {
                assert!(!wait.is_zero());
                state
            }
            Step::Prepare => state.with_next(spec.issue(None, at(second)).unwrap()),
            Step::Switch => state.switched(),
            Step::DropPrevious => state.without_previous(),
        };
        assert!(
            state.accepted_paths().len() <= 2,
            "a path is not served for longer than it is needed"
        );
        if !matches!(step, Step::Wait(_)) {
            steps.push(step);
            states.push((second, state.clone()));
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
    let cycle = [Step::Prepare, Step::Switch, Step::DropPrevious];
    assert!(steps.len() >= 15, "{steps:?}");
    assert!(
        steps.iter().zip(cycle.iter().cycle()).all(|(a, b)| a == b),
        "{steps:?}"
    );
}

/// Replicas of two versions of a Deployment, which were started with different --tls-names.
#[test]
fn a_certificate_for_former_names_is_replaced_by_one_for_both() {
    let before = test_spec();
    let after = CertificateSpec::new(vec!["other.own.svc".to_owned()], LIFETIME).unwrap();
    let served = |spec: &CertificateSpec, state: &CertificateState| {
        spec.check(&state.current, at(1)).unwrap().unwrap()
    };
    let state = CertificateState::new(before.issue(None, at(0)).unwrap());
    let pair = served(&after, &state);
    assert!(matches!(
        state.step(&before, Some(&pair), Duration::MAX, at(1)),
        Step::Wait(_)
    ));
    assert_eq!(
        state.step(&after, Some(&pair), Duration::ZERO, at(1)),
        Step::Prepare
    );
    let state = state.with_next(after.issue(Some(&pair), at(1)).unwrap());
    assert_eq!(state.clone().without_invalid_next(&before, at(1)), state);
    let state = state.switched().without_previous();
    let pair = served(&before, &state);
    assert_eq!(
        pair.names,
        ["other.own.svc", "acr-pull-webhook.own.svc", "127.0.0.1"]
    );
    for spec in [&before, &after] {
        let step = state.step(spec, Some(&pair), Duration::MAX, at(1));
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
fn invalid_names_are_refused() {
    for bad in ["", "a b", "*", "-x-.", "https://x"] {
        let refusal = CertificateSpec::new(vec![bad.to_owned()], LIFETIME).unwrap_err();
        assert!(refusal.starts_with("--tls-names"), "{refusal}");
    }
}
