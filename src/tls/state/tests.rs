use super::*;
use crate::tls::spec::CLOCK_SKEW_TOLERANCE;
use std::sync::Once;

const LIFETIME: Duration = Duration::from_secs(300);

fn new_spec() -> CertificateSpec {
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

/// Whether an API server that knows the state `published` can call a replica in the state `serving`.
fn reaches(published: &CertificateState, serving: &CertificateState) -> bool {
    let trusts = match (&published.ca_bundle(), &serving.current.certificate) {
        (Some(bundle), Some(signed)) => bundle.contains(signed.ca.trim()),
        (published, serving) => published.is_none() && serving.is_none(),
    };
    trusts && serving.accepted_paths().contains(published.published_path())
}

fn signed(credentials: &ServingCredentials) -> SignedCertificate {
    credentials.certificate.clone().unwrap()
}

fn data_of(state: &CertificateState) -> impl Fn(&str) -> Option<&'static [u8]> + use<> {
    let data = state.to_data();
    move |key| data.get(key).map(|value| &*value.clone().leak())
}

#[test]
fn a_certificate_is_only_valid_in_its_lifetime_and_with_its_own_ca_and_key() {
    let spec = new_spec();
    let credentials = spec.issue(None, at(0)).unwrap();
    let pair = spec.check(&credentials, at(0)).unwrap().unwrap();
    assert_eq!(pair.not_after, at(300));
    for (second, good) in [(1, true), (299, true), (301, false)] {
        assert_eq!(spec.check(&credentials, at(second)).is_ok(), good, "{second}");
    }
    assert!(
        spec.check(
            &credentials,
            at(0) - CLOCK_SKEW_TOLERANCE - Duration::from_secs(1)
        )
        .is_err()
    );

    let other = signed(&spec.issue(None, at(0)).unwrap());
    let good = signed(&credentials);
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
        let invalid = ServingCredentials {
            certificate: Some(invalid),
            ..credentials.clone()
        };
        let error = spec.check(&invalid, at(0)).unwrap_err();
        assert!(!error.contains("BEGIN"), "{error}");
    }
}

#[test]
fn a_state_is_the_same_after_it_is_read_from_the_secret() {
    let path_only = CertificateSpec::path_only(LIFETIME);
    for spec in [new_spec(), path_only.clone()] {
        let state = CertificateState::new(spec.issue(None, at(0)).unwrap())
            .prepared(spec.issue(None, at(1)).unwrap());
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
    let data = CertificateState::new(path_only.issue(None, at(0)).unwrap()).to_data();
    assert!(
        data.keys().eq(["path"]),
        "no certificate is issued if it comes from files"
    );
}

#[test]
fn an_incomplete_secret_is_completed_and_an_invalid_path_replaced() {
    let (spec, path_only) = (new_spec(), CertificateSpec::path_only(LIFETIME));
    let state = CertificateState::new(spec.issue(None, at(0)).unwrap());
    let complete = |spec: &CertificateSpec, hide: &[&str]| {
        let get = data_of(&state);
        let shown = |key: &str| get(key).filter(|_| !hide.contains(&key));
        assert!(CertificateState::from_data(spec, shown).is_none());
        CertificateState::new(spec.complete(spec.issue(None, at(1)).unwrap(), shown, at(1)))
    };
    // A Secret that is older than secret paths.
    let completed = complete(&spec, &["path"]);
    assert_eq!(completed.ca_bundle(), state.ca_bundle());
    assert_ne!(completed.published_path(), state.published_path());
    // The Secret of a webhook whose certificate came from files.
    let completed = complete(&spec, &["ca.crt", "tls.crt", "tls.key"]);
    assert_ne!(completed.ca_bundle(), state.ca_bundle());
    assert_eq!(completed.published_path(), state.published_path());
    // If the certificate comes from files, a stored certificate is ignored.
    let read = CertificateState::from_data(&path_only, data_of(&state)).unwrap();
    assert_eq!(read.published_path(), state.published_path());
    assert_eq!(read.ca_bundle(), None);

    for bad in ["", "/mutate/x", "0123", &"A".repeat(40), &"../".repeat(20)] {
        let get = data_of(&state);
        let bytes: &'static [u8] = bad.to_owned().leak().as_bytes();
        let invalid = |key: &str| match key {
            "path" => Some(bytes),
            key => get(key),
        };
        assert!(CertificateState::from_data(&spec, invalid).is_none(), "{bad}");
        let completed = spec.complete(spec.issue(None, at(1)).unwrap(), invalid, at(1));
        assert_ne!(&completed.path, state.published_path());
    }
}

#[test]
fn with_certificate_files_the_path_only_changes_if_the_secret_is_deleted() {
    let spec = CertificateSpec::path_only(LIFETIME);
    let state = CertificateState::new(spec.issue(None, at(0)).unwrap());
    let years = Duration::from_secs(10 * 365 * 86400);
    assert_eq!(
        state.next_step(&spec, None, years, at(0)),
        RotationStep::Wait(Duration::MAX)
    );
    // This is what the certificate manager does after the deletion.
    let prepared = state.clone().prepared(spec.issue(None, at(0)).unwrap());
    assert!(reaches(&state, &prepared) && reaches(&prepared, &prepared));
    let early = spec.propagation_time() - Duration::from_secs(1);
    assert!(matches!(
        prepared.next_step(&spec, None, early, at(0)),
        RotationStep::Wait(_)
    ));
    assert_eq!(
        prepared.next_step(&spec, None, spec.propagation_time(), at(0)),
        RotationStep::Switch
    );
    let switched = prepared.clone().switched();
    assert_ne!(switched.published_path(), state.published_path());
    assert!(reaches(&prepared, &switched) && reaches(&switched, &prepared));
    assert_eq!(
        switched.next_step(&spec, None, spec.propagation_time(), at(0)),
        RotationStep::DropPrevious
    );
    let forgotten = switched.clone().without_previous();
    assert!(reaches(&switched, &forgotten));
    assert!(
        !reaches(&state, &forgotten),
        "the path of a deleted Secret is not accepted forever"
    );
}

/// API servers and replicas learn of each change immediately, or as late as the propagation time allows.
#[test]
fn during_a_rotation_every_api_server_can_call_every_replica() {
    let spec = new_spec();
    let lag = spec.propagation_time().as_secs() - 1;
    let mut state = CertificateState::new(spec.issue(None, at(0)).unwrap());
    // Each state, and the second in which it was written and published.
    let mut states = vec![(0, state.clone())];
    let mut steps = Vec::new();
    for second in 0..1500 {
        let since = states.last().unwrap().0;
        let pair = spec
            .check(&state.current, at(second))
            .expect("the served certificate is always valid")
            .unwrap();
        let step = state.next_step(
            &spec,
            Some(&pair),
            Duration::from_secs(second - since),
            at(second),
        );
        state = match step {
            RotationStep::Wait(wait) => {
                assert!(!wait.is_zero());
                state
            }
            RotationStep::Prepare => state.prepared(spec.issue(None, at(second)).unwrap()),
            RotationStep::Switch => state.switched(),
            RotationStep::DropPrevious => state.without_previous(),
        };
        assert!(
            state.accepted_paths().len() <= 2,
            "a path is not accepted for longer than needed"
        );
        if !matches!(step, RotationStep::Wait(_)) {
            steps.push(step);
            states.push((second, state.clone()));
        }
        // All states that somebody may see with a delay of at most the lag.
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
    let cycle = [
        RotationStep::Prepare,
        RotationStep::Switch,
        RotationStep::DropPrevious,
    ];
    assert!(steps.len() >= 15, "{steps:?}");
    assert!(
        steps.iter().zip(cycle.iter().cycle()).all(|(a, b)| a == b),
        "{steps:?}"
    );
}

/// Two replicas were started with different --tls-names, during the rollout of a Deployment.
#[test]
fn a_certificate_for_other_names_is_replaced_by_one_for_both() {
    let before = new_spec();
    let after = CertificateSpec::new(vec!["other.own.svc".to_owned()], LIFETIME).unwrap();
    let served = |spec: &CertificateSpec, state: &CertificateState| {
        spec.check(&state.current, at(1)).unwrap().unwrap()
    };
    let state = CertificateState::new(before.issue(None, at(0)).unwrap());
    let pair = served(&after, &state);
    assert!(matches!(
        state.next_step(&before, Some(&pair), Duration::MAX, at(1)),
        RotationStep::Wait(_)
    ));
    assert_eq!(
        state.next_step(&after, Some(&pair), Duration::ZERO, at(1)),
        RotationStep::Prepare
    );
    let state = state.prepared(after.issue(Some(&pair), at(1)).unwrap());
    assert_eq!(state.clone().without_invalid_next(&before, at(1)), state);
    let state = state.switched().without_previous();
    let pair = served(&before, &state);
    assert_eq!(
        pair.names,
        ["other.own.svc", "acr-pull-webhook.own.svc", "127.0.0.1"]
    );
    for spec in [&before, &after] {
        let step = state.next_step(spec, Some(&pair), Duration::MAX, at(1));
        assert!(
            matches!(step, RotationStep::Wait(_)),
            "no replica replaces the other's certificate: {step:?}"
        );
    }
    // Later, no replica uses the previous names.
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
        assert!(refusal.to_string().starts_with("--tls-names"), "{refusal}");
    }
}
