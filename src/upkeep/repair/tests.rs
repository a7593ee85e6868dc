use super::*;
use serde_json::{Value, json};

const REGISTRY: &str = "contoso.azurecr.io";
const NAME: &str = "acr-pull-contoso-app";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn key() -> Key {
    ("team-a".to_owned(), NAME.to_owned())
}

fn wanted(second: i64, refused: bool) -> Wanted {
    Wanted {
        pod: ("team-a".to_owned(), "app".to_owned()),
        at: at(second),
        refused,
        looks: MAX_LOOKS,
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
        panic!("the Pod is readable")
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

fn agrees(refused: bool, pod: &LivePod) -> bool {
    wanted(0, refused).checked(Some(pod), NAME, Some(REGISTRY)) == Agreement::Agrees
}

#[test]
fn a_complaint_is_believed_where_the_pod_names_the_secret_and_its_status_agrees() {
    let failing = containers(&[running(), waiting("ImagePullBackOff")]);
    let runs = containers(&[running(), running()]);
    let crashes = containers(&[waiting("CrashLoopBackOff")]);
    let named = |status: &Value| pod(json!({}), &["regcred", NAME], status.clone());
    assert!(agrees(true, &named(&failing)) && agrees(false, &named(&failing)));
    assert!(agrees(true, &named(&containers(&[waiting("ErrImagePull")]))));
    // A Pod that has only just come has no status yet.
    assert!(!agrees(true, &named(&Value::Null)) && agrees(false, &named(&Value::Null)));
    assert!(!agrees(true, &named(&runs)) && !agrees(false, &named(&runs)));
    assert!(!agrees(true, &named(&crashes)));
    let init = json!({"initContainerStatuses": failing["containerStatuses"], "containerStatuses": []});
    assert!(agrees(true, &named(&init)));

    let other = wanted(0, true).checked(Some(&named(&failing)), NAME, Some("fabrikam.azurecr.io"));
    assert_eq!(other, Agreement::Disagrees);
    let longer = wanted(0, true).checked(Some(&named(&failing)), NAME, Some("contoso.azurecr"));
    assert_eq!(longer, Agreement::Disagrees);
    assert!(
        !agrees(true, &pod(json!({}), &["regcred"], failing.clone())),
        "it does not name it"
    );
    let mirror = pod(json!({MIRROR_POD_ANNOTATION: "x"}), &[NAME], failing.clone());
    assert!(!agrees(true, &mirror) && !agrees(false, &mirror));
    assert_eq!(
        wanted(0, false).checked(None, NAME, Some(REGISTRY)),
        Agreement::Disagrees
    );
    let early = Wanted {
        looks: 1,
        ..wanted(0, true)
    };
    assert_eq!(
        early.checked(Some(&named(&runs)), NAME, Some(REGISTRY)),
        Agreement::NotYet
    );
}

#[test]
fn a_complaint_about_the_token_before_is_none() {
    assert!(wanted(100, true).is_before(Some(at(100))));
    assert!(wanted(100, true).is_before(Some(at(500))));
    assert!(wanted(100, true).is_before(Some(Timestamp::MAX)));
    assert!(!wanted(100, true).is_before(Some(at(90))));
    assert!(!wanted(100, true).is_before(Some(Timestamp::MIN)));
    assert!(!wanted(100, true).is_before(None));
}

#[tokio::test(start_paused = true)]
async fn the_same_complaint_again_and_again_becomes_no_loop_of_either_kind() {
    for refused in [true, false] {
        let (repairs, mut made) = (Repairs::default(), 0);
        for second in 0..3600 {
            repairs.want(key(), wanted(second, refused));
            if repairs.wanted(&key()).unwrap().1.is_zero() {
                repairs.looked(&key());
                repairs.answered(&key(), at(second));
                repairs.made(&key());
                made += 1;
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!((8..=14).contains(&made), "{made} in an hour");
        tokio::time::advance(MAX_BETWEEN * 2 + Duration::from_secs(1)).await;
        repairs.made(&key());
        tokio::time::advance(MIN_BETWEEN).await;
        assert!(repairs.wait(&key()).is_zero(), "long after, it is another matter");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_read_for_a_complaint_every_ten_seconds_at_most() {
    let (repairs, mut looks) = (Repairs::default(), 0);
    for second in 0..600 {
        repairs.want(key(), wanted(second, false));
        if repairs.wanted(&key()).unwrap().1.is_zero() {
            repairs.looked(&key());
            repairs.answered(&key(), at(second));
            looks += 1;
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(looks, 60);
    repairs.forget(&key());
    assert!(repairs.wanted(&key()).is_none());
    repairs.want(key(), wanted(2, false));
    repairs.want(key(), wanted(1, false));
    assert_eq!(
        repairs.wanted(&key()).unwrap().0.at,
        at(2),
        "the later one counts"
    );
    repairs.answered(&key(), at(1));
    assert!(repairs.wanted(&key()).is_some());
    repairs.forget(&key());
    assert!(repairs.wanted(&key()).is_none());
}
