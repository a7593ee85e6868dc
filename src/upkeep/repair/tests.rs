use super::*;
use serde_json::{Value, json};

const REGISTRY: &str = "contoso.azurecr.io";
const NAME: &str = "acr-pull-contoso-app";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn key() -> NamespacedName {
    NamespacedName::new("team-a", NAME).unwrap()
}

fn request(second: i64, refused: bool) -> RepairRequest {
    RepairRequest {
        pod: NamespacedName::new("team-a", "app").unwrap(),
        reported_at: at(second),
        refused,
        pod_reads: MAX_POD_READS,
    }
}

fn pod(annotations: Value, secrets: &[&str], status: Value) -> LivePod {
    let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
    let pod = json!({
        "metadata": {"name": "app", "annotations": annotations},
        "spec": {"imagePullSecrets": secrets},
        "status": status,
    });
    let Item(Ok(pod)) = serde_json::from_str(&pod.to_string()).unwrap() else {
        panic!("the Pod cannot be decoded")
    };
    pod
}

fn containers(states: &[Value]) -> Value {
    let image = format!("{REGISTRY}/team-a/app:1");
    let all: Vec<_> = states
        .iter()
        .map(|state| json!({"name": "x", "image": image, "state": state}))
        .collect();
    json!({"phase": "Pending", "containerStatuses": all})
}

fn waiting(reason: &str) -> Value {
    json!({"waiting": {"reason": reason}})
}

fn running() -> Value {
    json!({"running": {"startedAt": "2026-05-05T12:00:00Z"}})
}

fn confirms(refused: bool, pod: &LivePod) -> bool {
    request(0, refused).check(Some(pod), NAME, Some(REGISTRY)) == Verdict::Confirmed
}

#[test]
fn a_failure_is_confirmed_by_a_pod_that_names_the_secret_and_waits() {
    let failing = containers(&[running(), waiting("ImagePullBackOff")]);
    let runs = containers(&[running(), running()]);
    let crashes = containers(&[waiting("CrashLoopBackOff")]);
    let named = |status: &Value| pod(json!({}), &["regcred", NAME], status.clone());
    assert!(confirms(true, &named(&failing)) && confirms(false, &named(&failing)));
    assert!(confirms(true, &named(&containers(&[waiting("ErrImagePull")]))));
    // A new Pod has no status yet.
    assert!(!confirms(true, &named(&Value::Null)) && confirms(false, &named(&Value::Null)));
    assert!(!confirms(true, &named(&runs)) && !confirms(false, &named(&runs)));
    assert!(!confirms(true, &named(&crashes)));
    let init = json!({"initContainerStatuses": failing["containerStatuses"], "containerStatuses": []});
    assert!(confirms(true, &named(&init)));

    let other = request(0, true).check(Some(&named(&failing)), NAME, Some("fabrikam.azurecr.io"));
    assert_eq!(other, Verdict::Rejected);
    let longer = request(0, true).check(Some(&named(&failing)), NAME, Some("contoso.azurecr"));
    assert_eq!(longer, Verdict::Rejected);
    assert!(
        !confirms(true, &pod(json!({}), &["regcred"], failing.clone())),
        "the Pod does not name the Secret"
    );
    let mirror = pod(json!({MIRROR_POD_ANNOTATION: "x"}), &[NAME], failing.clone());
    assert!(!confirms(true, &mirror) && !confirms(false, &mirror));
    assert_eq!(
        request(0, false).check(None, NAME, Some(REGISTRY)),
        Verdict::Rejected
    );
    let early = RepairRequest {
        pod_reads: 1,
        ..request(0, true)
    };
    assert_eq!(
        early.check(Some(&named(&runs)), NAME, Some(REGISTRY)),
        Verdict::NotYet
    );
}

#[test]
fn a_pod_has_pulled_when_it_has_an_image_and_waits_for_none() {
    let pulled = |states: &[(Value, &str)]| {
        let states = states.iter().map(|(state, id)| {
            json!({"name": "x", "image": format!("{REGISTRY}/app:1"), "imageID": id, "state": state})
        });
        let status = json!({"containerStatuses": states.collect::<Vec<_>>()});
        pod(json!({}), &[NAME], status).has_pulled_from(REGISTRY)
    };
    assert!(pulled(&[(running(), "sha256:1")]));
    assert!(pulled(&[(waiting("CrashLoopBackOff"), "sha256:1")]));
    assert!(!pulled(&[(waiting("ContainerCreating"), "")]));
    assert!(!pulled(&[
        (running(), "sha256:1"),
        (waiting("ImagePullBackOff"), "")
    ]));
    assert!(!pod(json!({}), &[NAME], containers(&[running()])).has_pulled_from("fabrikam.azurecr.io"));
}

#[tokio::test(start_paused = true)]
async fn a_repair_was_useless_if_the_next_token_of_the_same_inputs_is_refused() {
    let repairs = Repairs::default();
    assert!(!repairs.was_useless(&key(), Some("a")));
    repairs.record_repair(&key());
    repairs.record_refused_inputs(&key(), None);
    assert!(!repairs.was_useless(&key(), Some("a")), "the Secret was missing");
    repairs.record_refused_inputs(&key(), Some("a".to_owned()));
    assert!(repairs.was_useless(&key(), Some("a")));
    assert!(!repairs.was_useless(&key(), Some("b")) && !repairs.was_useless(&key(), None));
    tokio::time::advance(MAX_INTERVAL * 3).await;
    assert!(!repairs.was_useless(&key(), Some("a")), "the repair is long ago");
}

#[test]
fn a_failure_before_the_last_renewal_is_ignored() {
    assert!(request(100, true).precedes(Some(at(100))));
    assert!(request(100, true).precedes(Some(at(500))));
    assert!(request(100, true).precedes(Some(Timestamp::MAX)));
    assert!(!request(100, true).precedes(Some(at(90))));
    assert!(!request(100, true).precedes(Some(Timestamp::MIN)));
    assert!(!request(100, true).precedes(None));
}

#[tokio::test(start_paused = true)]
async fn repeated_failures_are_repaired_at_growing_intervals() {
    for refused in [true, false] {
        let repairs = Repairs::default();
        let mut repairs_made = 0;
        for second in 0..3600 {
            repairs.request(key(), request(second, refused));
            if repairs.pending(&key()).unwrap().1.is_zero() {
                repairs.record_pod_read(&key());
                repairs.resolve(&key(), at(second));
                repairs.record_repair(&key());
                repairs_made += 1;
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(
            (8..=14).contains(&repairs_made),
            "{repairs_made} repairs in an hour"
        );
        tokio::time::advance(MAX_INTERVAL * 2 + Duration::from_secs(1)).await;
        repairs.record_repair(&key());
        tokio::time::advance(MIN_INTERVAL).await;
        assert!(
            repairs.wait(&key()).is_zero(),
            "after a long pause the interval starts again"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_read_for_a_failure_at_most_every_ten_seconds() {
    let repairs = Repairs::default();
    let mut reads = 0;
    for second in 0..600 {
        repairs.request(key(), request(second, false));
        if repairs.pending(&key()).unwrap().1.is_zero() {
            repairs.record_pod_read(&key());
            repairs.resolve(&key(), at(second));
            reads += 1;
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(reads, 60);
    repairs.forget(&key());
    assert!(repairs.pending(&key()).is_none());
    repairs.request(key(), request(2, false));
    repairs.request(key(), request(1, false));
    assert_eq!(
        repairs.pending(&key()).unwrap().0.reported_at,
        at(2),
        "the later failure counts"
    );
    repairs.resolve(&key(), at(1));
    assert!(repairs.pending(&key()).is_some());
    repairs.forget(&key());
    assert!(repairs.pending(&key()).is_none());
}
