use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: &str = "2026-05-05T12:00:00Z";
const OURS: &str = "acr-pull-contoso-app-7a2226b454";
const REGISTRY: &str = "contoso.azurecr.io";

fn read(event: Value) -> Option<Complaint> {
    let Item(Ok(event)) = serde_json::from_str(&event.to_string()).unwrap() else {
        panic!("the Event is readable")
    };
    Complaint::of(&event, NOW.parse().unwrap())
}

fn event(reason: &str, message: &str) -> Value {
    json!({
        "metadata": {"name": "x", "namespace": "team-a"},
        "involvedObject": {"kind": "Pod", "namespace": "team-a", "name": "app"},
        "reason": reason,
        "message": message,
        "firstTimestamp": NOW,
        "lastTimestamp": NOW,
        "eventTime": null,
    })
}

fn is_refused(message: &str) -> bool {
    read(event("Failed", message)).is_some_and(|complaint| {
        assert_eq!(complaint.pod, ("team-a".to_owned(), "app".to_owned()));
        complaint.is_about(OURS, Some(REGISTRY))
    })
}

#[test]
fn a_missing_secret_is_one_of_those_that_the_kubelet_names() {
    let missing = |names: &str| {
        let message = format!(
            "Unable to retrieve some image pull secrets ({names}); attempting to pull the image may not succeed."
        );
        read(event("FailedToRetrieveImagePullSecret", &message))
    };
    for ours in [
        OURS.to_owned(),
        format!("regcred, {OURS}"),
        format!("{OURS}, acr-pull-x"),
    ] {
        let complaint = missing(&ours).unwrap();
        assert!(complaint.is_about(OURS, None), "{ours}");
        assert!(!complaint.is_about("acr-pull-other", None));
    }
    for foreign in ["regcred", "", "acr-pull-", "regcred, acr-pull-X"] {
        assert_eq!(missing(foreign), None, "{foreign}");
    }
    assert_eq!(read(event("FailedToRetrieveImagePullSecret", "")), None);
    let many = (0..500)
        .map(|n| format!("acr-pull-{n}"))
        .collect::<Vec<_>>()
        .join(", ");
    let What::Missing(names) = missing(&many).unwrap().what else {
        panic!("something is missing")
    };
    assert_eq!(names.len(), 16);
}

#[test]
fn a_refusal_names_the_registry_of_the_pull_secret_and_refuses_after_it() {
    for refused in [
        r#"Failed to pull image "contoso.azurecr.io/app:1": failed to authorize: failed to fetch oauth token: unexpected status from GET request to https://contoso.azurecr.io/oauth2/token: 401 Unauthorized"#,
        r#"Failed to pull image "contoso.azurecr.io/app:1": rpc error: code = Unknown desc = pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed"#,
        r#"Failed to pull image "contoso.azurecr.io/app:1": initializing source docker://contoso.azurecr.io/app:1: unauthorized: authentication required"#,
        r#"Failed to pull image "contoso.azurecr.io/app@sha256:0": unexpected status code 403 Forbidden"#,
    ] {
        assert!(is_refused(refused), "{refused}");
    }
    for other in [
        "Error: ImagePullBackOff",
        "Error: cannot start",
        r#"Failed to pull image "contoso.azurecr.io/app:1": not found"#,
        r#"Failed to pull image "contoso.azurecr.io/app:1.0.403": contoso.azurecr.io/app:1.0.403: not found"#,
        r#"Failed to pull image "contoso.azurecr.io/app:401": contoso.azurecr.io/app:401: not found"#,
        r#"Failed to pull image "contoso.azurecr.io/app@sha256:0401403": contoso.azurecr.io/app@sha256:0401403: not found"#,
        r#"Failed to pull image "contoso.azurecr.io/denied/unauthorized:1": not found"#,
        r#"Failed to pull image "docker.io/x/y:1": pull access denied"#,
        r#"Failed to pull image "docker.io/contoso.azurecr.io/y:1": pull access denied"#,
        r#"Failed to pull image "notcontoso.azurecr.io/y:1": pull access denied"#,
        r#"Failed to pull image "contoso.azurecr.io.example.com/y:1": pull access denied"#,
        r#"pull access denied for "contoso.azurecr.io/app:1""#,
    ] {
        assert!(!is_refused(other), "{other}");
    }
    let complaint = read(event(
        "Failed",
        r#"Failed to pull image "contoso.azurecr.io/app:1": 401 Unauthorized"#,
    ));
    assert!(!complaint.unwrap().is_about(OURS, None));
}

#[test]
fn an_event_is_about_a_pod_of_its_own_namespace() {
    let mut foreign = event("FailedToRetrieveImagePullSecret", &format!("({OURS})"));
    assert!(read(foreign.clone()).is_some());
    foreign["involvedObject"]["namespace"] = json!("team-b");
    assert_eq!(read(foreign.clone()), None);
    foreign["involvedObject"] = json!({"kind": "Pod"});
    assert_eq!(read(foreign), None);
}

#[test]
fn the_time_of_an_event_is_the_last_that_it_tells_and_an_absurd_one_is_none() {
    let at = |times: Value| {
        let mut event = event("FailedToRetrieveImagePullSecret", &format!("({OURS})"));
        for field in ["firstTimestamp", "lastTimestamp"] {
            event[field] = Value::Null;
        }
        for (key, value) in times.as_object().unwrap() {
            event[key] = value.clone();
        }
        read(event).map(|complaint| complaint.at.to_string())
    };
    let (early, late) = ("2026-05-05T11:00:00Z", "2026-05-05T11:30:00Z");
    assert_eq!(at(json!({"firstTimestamp": early})).as_deref(), Some(early));
    assert_eq!(
        at(json!({"firstTimestamp": early, "lastTimestamp": late})).as_deref(),
        Some(late)
    );
    assert_eq!(
        at(json!({"eventTime": early, "series": {"count": 2, "lastObservedTime": late}})).as_deref(),
        Some(late)
    );
    for absurd in [
        json!({}),
        json!({"eventTime": "9999-12-31T23:59:59Z"}),
        json!({"eventTime": "2026-05-05T12:06:00Z"}),
        json!({"eventTime": "yesterday"}),
    ] {
        assert_eq!(at(absurd.clone()), None, "{absurd}");
    }
}

#[test]
fn of_a_long_message_only_the_beginning_is_kept() {
    let long = format!(
        r#"Failed to pull image "contoso.azurecr.io/app:1": 401 Unauthorized {}"#,
        "ü".repeat(1 << 16)
    );
    let What::Refused(kept) = read(event("Failed", &long)).unwrap().what else {
        panic!("it is a refusal")
    };
    assert!(kept.len() <= MAX_MESSAGE);
}

proptest! {
    #[test]
    fn no_event_makes_it_panic(reason in "Failed(ToRetrieveImagePullSecret)?", message in ".{0,300}", time in ".{0,40}") {
        let mut event = event(&reason, &format!("pull {message}"));
        event["lastTimestamp"] = json!(time);
        if let Some(complaint) = read(event) {
            complaint.is_about(OURS, Some(REGISTRY));
        }
    }
}
