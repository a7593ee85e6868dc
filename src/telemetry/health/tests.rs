use super::*;

#[test]
fn a_reason_holds_until_its_own_handle_clears_it() {
    let readiness = Readiness::default();
    let [one, other] = ["watch of Pods", "watch of Pods"].map(|reason| readiness.unready(reason));
    assert_eq!(readiness.unready_reasons(), ["watch of Pods"]);
    one.clear();
    assert_eq!(
        readiness.unready_reasons(),
        ["watch of Pods"],
        "the other handle with this text has not cleared it"
    );
    assert!(!one.is_set() && other.is_set());
    other.clear();
    assert!(readiness.unready_reasons().is_empty());
    one.set();
    assert_eq!(readiness.unready_reasons(), ["watch of Pods"]);
    one.clear();
    drop(one);
    other.set();
    drop(other);
    assert_eq!(
        readiness.unready_reasons(),
        ["watch of Pods"],
        "a dropped handle leaves its reason as it is"
    );
}

#[tokio::test]
async fn a_missing_kind_is_named_and_makes_no_replica_unready() {
    let readiness = Readiness::default();
    let metrics = Metrics::new();
    let mut scope = readiness
        .register_watch("watch of ACRAccessTokens", &metrics)
        .register_scope();
    let health = Health::new(readiness.clone(), metrics);
    let body = async || {
        let response = readyz(State(health.clone())).await;
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
        (status, String::from_utf8(bytes.into()).unwrap())
    };
    assert_eq!(body().await, (StatusCode::OK, "ok".to_owned()));
    scope.set_failing(Outage::Refused);
    scope.set_kind_missing(true);
    let (status, text) = body().await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        text,
        "ok (CustomResourceDefinition not installed: watch of ACRAccessTokens)"
    );
    scope.set_working();
    assert_eq!(body().await.1, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_current_until_all_its_scopes_fail_beyond_the_tolerance() {
    let readiness = Readiness::default();
    let metrics = Metrics::new();
    // Two watches with the same name are independent.
    let [watch, other] = ["one", "one"].map(|name| readiness.register_watch(name, &metrics));
    assert!(!watch.is_current(), "a watch without scopes");
    let [mut first, mut second] = [watch.register_scope(), watch.register_scope()];
    let mut of_other = other.register_scope();
    assert!(watch.is_current() && other.is_current());
    for outage in [Outage::Refused, Outage::Unreachable] {
        first.set_failing(outage);
        of_other.set_failing(outage);
        tokio::time::advance(OUTAGE_TOLERANCE).await;
        assert!(watch.is_current() && !other.is_current());
        second.set_failing(outage);
        tokio::time::advance(OUTAGE_TOLERANCE - Duration::from_secs(1)).await;
        second.set_failing(outage);
        assert!(watch.is_current());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!watch.is_current());
        second.set_working();
        assert!(watch.is_current());
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_is_unready_once_all_its_watches_are_unreachable_for_long() {
    let readiness = Readiness::default();
    let metrics = Metrics::new();
    let mut one = readiness.register_watch("one", &metrics).register_scope();
    let mut other = readiness.register_watch("other", &metrics).register_scope();
    one.set_failing(Outage::Unreachable);
    tokio::time::advance(OUTAGE_TOLERANCE).await;
    one.set_failing(Outage::Unreachable);
    assert!(readiness.unready_reasons().is_empty());
    other.set_failing(Outage::Refused);
    tokio::time::advance(OUTAGE_TOLERANCE).await;
    assert!(readiness.unready_reasons().is_empty(), "the API server answers");
    other.set_failing(Outage::Unreachable);
    tokio::time::advance(OUTAGE_TOLERANCE - Duration::from_secs(1)).await;
    assert!(readiness.unready_reasons().is_empty());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(readiness.unready_reasons(), [API_SERVER_UNREACHABLE]);
    other.set_working();
    assert!(readiness.unready_reasons().is_empty());
    other.set_failing(Outage::Unreachable);
    tokio::time::advance(OUTAGE_TOLERANCE).await;
    assert_eq!(readiness.unready_reasons(), [API_SERVER_UNREACHABLE]);
    drop((one, other));
    assert!(
        readiness.unready_reasons().is_empty(),
        "a dropped watch does not count"
    );
}
