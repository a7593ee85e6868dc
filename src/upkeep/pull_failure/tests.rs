use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: &str = "2026-05-05T12:00:00Z";
const PULL_SECRET: &str = "acr-pull-contoso-app-7a2226b454";
const REGISTRY: &str = "contoso.azurecr.io";

fn pull_failure(event: Value) -> Option<PullFailure> {
    let Item(Ok(event)) = serde_json::from_str(&event.to_string()).unwrap() else {
        panic!("the Event cannot be decoded")
    };
    PullFailure::from_event(&event, NOW.parse().unwrap())
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
    pull_failure(event("Failed", message)).is_some_and(|failure| {
        assert_eq!(failure.pod, NamespacedName::new("team-a", "app").unwrap());
        failure.concerns(PULL_SECRET, Some(REGISTRY))
    })
}

#[test]
fn missing_secrets_are_read_from_the_names_in_parentheses() {
    let missing = |names: &str| {
        let message = format!(
            "Unable to retrieve some image pull secrets ({names}); attempting to pull the image may not succeed."
        );
        pull_failure(event("FailedToRetrieveImagePullSecret", &message))
    };
    for names in [
        PULL_SECRET.to_owned(),
        format!("regcred, {PULL_SECRET}"),
        format!("{PULL_SECRET}, acr-pull-x"),
    ] {
        let failure = missing(&names).unwrap();
        assert!(failure.concerns(PULL_SECRET, None), "{names}");
        assert!(!failure.concerns("acr-pull-other", None));
    }
    for foreign in ["regcred", "", "acr-pull-", "regcred, acr-pull-X"] {
        assert_eq!(missing(foreign), None, "{foreign}");
    }
    assert_eq!(pull_failure(event("FailedToRetrieveImagePullSecret", "")), None);
    let many = (0..500)
        .map(|n| format!("acr-pull-{n}"))
        .collect::<Vec<_>>()
        .join(", ");
    let FailureCause::SecretsMissing(names) = missing(&many).unwrap().cause else {
        panic!("the cause is not a missing Secret")
    };
    assert_eq!(names.len(), 16);
}

#[test]
fn a_refusal_concerns_a_pull_secret_if_it_follows_its_registry() {
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
    let failure = pull_failure(event(
        "Failed",
        r#"Failed to pull image "contoso.azurecr.io/app:1": 401 Unauthorized"#,
    ));
    assert!(!failure.unwrap().concerns(PULL_SECRET, None));
}

#[test]
fn an_event_about_a_pod_of_another_namespace_is_ignored() {
    let mut foreign = event("FailedToRetrieveImagePullSecret", &format!("({PULL_SECRET})"));
    assert!(pull_failure(foreign.clone()).is_some());
    foreign["involvedObject"]["namespace"] = json!("team-b");
    assert_eq!(pull_failure(foreign.clone()), None);
    foreign["involvedObject"] = json!({"kind": "Pod"});
    assert_eq!(pull_failure(foreign), None);
}

#[test]
fn the_latest_time_counts_and_events_without_a_valid_time_are_ignored() {
    let at = |times: Value| {
        let mut event = event("FailedToRetrieveImagePullSecret", &format!("({PULL_SECRET})"));
        for field in ["firstTimestamp", "lastTimestamp"] {
            event[field] = Value::Null;
        }
        for (key, value) in times.as_object().unwrap() {
            event[key] = value.clone();
        }
        pull_failure(event).map(|failure| failure.reported_at.to_string())
    };
    let early = "2026-05-05T11:00:00Z";
    let late = "2026-05-05T11:30:00Z";
    assert_eq!(at(json!({"firstTimestamp": early})).as_deref(), Some(early));
    assert_eq!(
        at(json!({"firstTimestamp": early, "lastTimestamp": late})).as_deref(),
        Some(late)
    );
    assert_eq!(
        at(json!({"eventTime": early, "series": {"count": 2, "lastObservedTime": late}})).as_deref(),
        Some(late)
    );
    for invalid in [
        json!({}),
        json!({"eventTime": "9999-12-31T23:59:59Z"}),
        json!({"eventTime": "2026-05-05T12:06:00Z"}),
        json!({"eventTime": "yesterday"}),
    ] {
        assert_eq!(at(invalid.clone()), None, "{invalid}");
    }
}

#[test]
fn a_long_message_is_truncated() {
    let long = format!(
        r#"Failed to pull image "contoso.azurecr.io/app:1": 401 Unauthorized {}"#,
        "ü".repeat(1 << 16)
    );
    let FailureCause::Refused(kept) = pull_failure(event("Failed", &long)).unwrap().cause else {
        panic!("the cause is not a refusal")
    };
    assert!(kept.len() <= MAX_MESSAGE_BYTES);
}

proptest! {
    #[test]
    fn no_event_causes_a_panic(reason in "Failed(ToRetrieveImagePullSecret)?", message in ".{0,300}", time in ".{0,40}") {
        let mut event = event(&reason, &format!("pull {message}"));
        event["lastTimestamp"] = json!(time);
        if let Some(failure) = pull_failure(event) {
            failure.concerns(PULL_SECRET, Some(REGISTRY));
        }
    }
}
