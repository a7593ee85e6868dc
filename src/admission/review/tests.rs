use super::*;
use crate::admission::{annotation::ACCESS_TOKEN_ANNOTATION, patch::patch};
use proptest::prelude::*;
use serde_json::{Value, json};

fn review(object: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "team-a",
            "operation": "CREATE",
            "object": object,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions"},
        },
    })
}

#[test]
fn the_fields_that_a_decision_needs_are_parsed() {
    let body = review(json!({
        "metadata": {"generateName": "app-", "annotations": {ACCESS_TOKEN_ANNOTATION: "con\u{e9}toso\n"}, "creationTimestamp": null},
        "spec": {"serviceAccountName": "app", "imagePullSecrets": [{"name": "mine"}], "containers": [{"name": "c"}]},
    }))
    .to_string();
    let request = parse(body.as_bytes()).unwrap();
    assert_eq!(request.uid, "u-1");
    assert_eq!(request.namespace, "team-a");
    assert_eq!(
        request.reference_source(),
        Some(ReferenceSource::PodAnnotation("con\u{e9}toso\n"))
    );
    assert_eq!(request.object.service_account().map(|name| &**name), Some("app"));
    assert_eq!(request.object.name(), "app-");
}

#[test]
fn only_the_creation_of_a_pod_has_references() {
    let pod = json!({"metadata": {"annotations": {ACCESS_TOKEN_ANNOTATION: "contoso"}}});
    let has_references = |edit: &dyn Fn(&mut Value)| {
        let mut body = review(pod.clone());
        edit(&mut body["request"]);
        parse(body.to_string().as_bytes())
            .unwrap()
            .reference_source()
            .is_some()
    };
    assert!(has_references(&|_| ()));
    assert!(has_references(
        &|r| r["object"]["metadata"]["annotations"] = json!(null)
    ));
    assert!(!has_references(&|r| r["operation"] = json!("UPDATE")));
    assert!(!has_references(
        &|r| r["subResource"] = json!("ephemeralcontainers")
    ));
    assert!(!has_references(
        &|r| r["resource"]["resource"] = json!("deployments")
    ));
    assert!(!has_references(
        &|r| r["resource"]["group"] = json!("metrics.k8s.io")
    ));
    assert!(!has_references(
        &|r| r["object"]["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("x")
    ));
}

#[test]
fn the_label_of_the_namespace_applies_to_pods_without_the_annotation() {
    for metadata in [
        json!({}),
        json!({"annotations": null}),
        json!({"annotations": {"a": "b"}}),
    ] {
        let body = review(json!({"metadata": metadata})).to_string();
        assert_eq!(
            parse(body.as_bytes()).unwrap().reference_source(),
            Some(ReferenceSource::NamespaceLabel),
            "{body}"
        );
    }
}

#[test]
fn another_spelling_of_the_registry_is_found_and_is_not_a_match() {
    let body = |image: &str| review(json!({"spec": {"containers": [{"image": image}]}})).to_string();
    for image in [
        "Contoso.azurecr.io/app",
        "contoso.azurecr.io:443/app:1",
        "CONTOSO.AZURECR.IO:443/app",
    ] {
        let body = body(image);
        let pod = parse(body.as_bytes()).unwrap().object;
        let host = image.split_once('/').unwrap().0;
        let spelling = pod.spelling_of("contoso.azurecr.io");
        assert_eq!(spelling, Some(Spelling::Other(host)), "{image}");
    }
    for (image, expected) in [
        ("contoso.azurecr.io/app", Some(Spelling::Exact)),
        ("contoso.azurecr.io:5000/app", None),
        ("busybox", None),
    ] {
        let body = body(image);
        let pod = parse(body.as_bytes()).unwrap().object;
        assert_eq!(pod.spelling_of("contoso.azurecr.io"), expected, "{image}");
    }
}

#[test]
fn registries_of_all_images_are_compared_exactly() {
    let pulls = |spec: Value| {
        let body = review(json!({"metadata": {}, "spec": spec})).to_string();
        parse(body.as_bytes())
            .unwrap()
            .object
            .spelling_of("contoso.azurecr.io")
            .is_some_and(|spelling| spelling == Spelling::Exact)
    };
    let volumes =
        json!([{"name": "a", "emptyDir": {}}, {"image": {"reference": "contoso.azurecr.io/data:1"}}]);
    assert!(pulls(
        json!({"containers": [{"image": "busybox"}], "volumes": volumes})
    ));
    // The image of an RBD volume is a disk of a Ceph cluster.
    let disk = json!([{"rbd": {"image": "contoso.azurecr.io/disk"}}, {"image": null}]);
    assert!(!pulls(json!({"volumes": disk})));
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        assert!(
            pulls(json!({list: [{"image": "busybox"}, {"image": "contoso.azurecr.io/team/app@sha256:0"}]})),
            "{list}"
        );
    }
    for image in [
        "busybox",
        "contoso.azurecr.io",
        "contoso.azurecr.io:443/app",
        "Contoso.azurecr.io/app",
        "contoso.azurecr.io.evil.example/app",
        "docker.io/contoso.azurecr.io/app",
    ] {
        assert!(!pulls(json!({"containers": [{"image": image}, {}]})), "{image}");
    }
    assert!(!pulls(json!({})));
}

#[test]
fn null_is_like_an_absent_field_where_a_field_is_optional() {
    for object in [
        json!(null),
        json!({
            "metadata": {"name": null, "generateName": null, "annotations": null, "labels": null},
            "spec": {
                "serviceAccountName": null,
                "imagePullSecrets": null,
                "containers": null,
                "initContainers": [{"image": null}],
                "volumes": [{"image": null}, {"image": {"reference": null}}],
            },
        }),
    ] {
        let mut body = review(object);
        body["request"]["subResource"] = json!(null);
        let body = body.to_string();
        let request = parse(body.as_bytes()).unwrap();
        assert_eq!(request.reference_source(), Some(ReferenceSource::NamespaceLabel));
        assert_eq!(request.object.registries().count(), 0);
        let expected = patch(&PodView::default(), &["a"]);
        assert_eq!(patch(&request.object, &["a"]), expected, "{body}");
    }
}

#[test]
fn a_duplicate_field_is_refused() {
    let body =
        review(json!({"metadata": {"name": "a"}, "spec": {"containers": [{"image": "b"}]}})).to_string();
    assert!(parse(body.as_bytes()).is_ok());
    for field in [
        r#""uid":"u-1""#,
        r#""operation":"CREATE""#,
        r#""name":"a""#,
        r#""containers":[{"image":"b"}]"#,
        r#""image":"b""#,
    ] {
        assert!(body.contains(field), "{body}");
        let doubled = body.replacen(field, &format!("{field},{field}"), 1);
        let (uid, problem) = parse(doubled.as_bytes()).unwrap_err();
        assert_eq!(problem.reason, Reason::InvalidReview);
        assert!(problem.to_string().contains("duplicate field"), "{problem}");
        assert_eq!(uid.is_none(), field.contains("uid"), "{uid:?}");
    }
}

#[test]
fn a_review_without_a_required_field_is_refused() {
    for path in [
        "/apiVersion",
        "/kind",
        "/request",
        "/request/uid",
        "/request/namespace",
        "/request/operation",
        "/request/resource",
        "/request/resource/resource",
    ] {
        for replacement in [None, Some(json!(null))] {
            let mut body = review(json!({}));
            let (parent, field) = path.rsplit_once('/').unwrap();
            let parent = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            parent.remove(field);
            parent.extend(replacement.map(|value| (field.to_owned(), value)));
            let (_, problem) = parse(body.to_string().as_bytes()).unwrap_err();
            assert_eq!(problem.reason, Reason::InvalidReview, "{path}");
        }
    }
}

#[test]
fn a_field_of_another_type_is_refused() {
    for object in [
        json!({"metadata": null}),
        json!({"metadata": {"annotations": "x"}}),
        json!({"metadata": {"labels": {"acr-pull.dev/injected": true}}}),
        json!({"spec": {"containers": {}}}),
        json!({"spec": null}),
        json!({"spec": {"containers": ["x"]}}),
        json!({"spec": {"containers": [null]}}),
        json!({"spec": {"imagePullSecrets": [{"name": null}]}}),
        json!({"spec": {"containers": [{"image": {}}]}}),
        json!({"spec": {"volumes": [{"image": "x"}]}}),
        json!({"spec": {"imagePullSecrets": [{"name": 1}]}}),
        json!({"spec": {"serviceAccountName": 1}}),
    ] {
        let body = review(object.clone()).to_string();
        let (uid, problem) = parse(body.as_bytes()).unwrap_err();
        assert_eq!(uid.as_deref(), Some("u-1"));
        assert_eq!(problem.reason, Reason::InvalidReview, "{object}");
    }
}

#[test]
fn the_uid_of_an_invalid_review_is_parsed() {
    let mut body = review(json!({"metadata": {"annotations": {ACCESS_TOKEN_ANNOTATION: ["not", "text"]}}}));
    let (uid, problem) = parse(body.to_string().as_bytes()).unwrap_err();
    assert_eq!(uid.as_deref(), Some("u-1"));
    assert_eq!(problem.reason, Reason::InvalidReview);
    body["apiVersion"] = json!("admission.k8s.io/v1beta1");
    body["request"]["object"] = json!({});
    let (uid, problem) = parse(body.to_string().as_bytes()).unwrap_err();
    assert_eq!(uid.as_deref(), Some("u-1"));
    assert!(problem.to_string().contains("v1beta1"), "{problem}");
    assert_eq!(parse(b"{").unwrap_err().0, None);
}

proptest! {
    #[test]
    fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&body);
    }

    #[test]
    fn no_pod_panics(text in "\\PC*", name in "\\PC{0,9}") {
        let mut whole = review(json!({"metadata": {"annotations": {ACCESS_TOKEN_ANNOTATION: text}}, "spec": {"serviceAccountName": name}}));
        whole["request"]["namespace"] = json!("team-a");
        if let Ok(request) = parse(whole.to_string().as_bytes()) {
            prop_assert_eq!(request.reference_source(), Some(ReferenceSource::PodAnnotation(text.as_str())));
        }
    }
}

#[test]
fn names_that_would_change_the_path_of_a_call_are_refused() {
    for invalid in ["../kube-system", "a/b", "a?x=y", "A", "", "a.b", &"a".repeat(64)] {
        let mut whole = review(json!({"metadata": {}, "spec": {}}));
        whole["request"]["namespace"] = json!(invalid);
        let (uid, problem) = parse(whole.to_string().as_bytes()).unwrap_err();
        assert_eq!(
            (uid.as_deref(), problem.reason),
            (Some("u-1"), Reason::InvalidReview)
        );
    }
    let body = review(json!({"metadata": {}, "spec": {"serviceAccountName": "../x"}})).to_string();
    assert!(parse(body.as_bytes()).is_err());
}

fn pods_with_short_and_long_values() -> [Value; 4] {
    [
        json!({"metadata": {"generateName": "app-"}, "spec": {}}),
        json!({
            "metadata": {
                "name": "app",
                "annotations": {ACCESS_TOKEN_ANNOTATION: "contoso", "acr-pull.dev/pull-secrets": "acr-pull-x"},
                "labels": {"acr-pull.dev/injected": "true", "a": "b"},
            },
            "spec": {
                "serviceAccountName": "app",
                "imagePullSecrets": [{"name": "mine"}, {"name": "acr-pull-x"}, {}, {"name": "n".repeat(9999)}],
                "containers": [{"image": "contoso.azurecr.io/a"}, {"image": "contoso.azurecr.io/b"}, {"image": "c"}],
                "initContainers": [{"image": " other.azurecr.io/a "}, {"image": format!("{}/x", "x".repeat(9999))}],
            },
        }),
        json!({"metadata": {"name": "n".repeat(9999), "annotations": {"kubernetes.io/config.mirror": "x"}}}),
        json!({
            "metadata": {
                "annotations": {"acr-pull.dev/pull-secrets": "x".repeat(99999)},
                "labels": {"acr-pull.dev/injected": "x".repeat(99999)},
            },
        }),
    ]
}

#[test]
fn a_detached_request_is_decided_like_the_original() {
    for pod in pods_with_short_and_long_values() {
        let body = review(pod).to_string();
        let (original, request) = (
            parse(body.as_bytes()).unwrap(),
            parse(body.as_bytes()).unwrap().detached().unwrap(),
        );
        assert_eq!(request.uid, original.uid);
        assert_eq!(request.namespace, original.namespace);
        assert_eq!(request.dry_run, original.dry_run);
        assert_eq!(request.reference_source(), original.reference_source());
        assert_eq!(request.object.name(), original.object.name());
        assert_eq!(
            request.object.service_account(),
            original.object.service_account()
        );
        for registry in ["contoso.azurecr.io", "other.azurecr.io", "elsewhere.azurecr.io"] {
            let (pulls, pulled) = (
                request.object.spelling_of(registry),
                original.object.spelling_of(registry),
            );
            assert_eq!(pulls, pulled, "{registry}");
            // An image name of this length is not kept, and neither are the other names then.
            let is_long = original.object.registries().any(|registry| registry.len() > 512);
            let repositories = |request: &Request<'_>| {
                let repositories = request.object.repositories_of(registry).map(str::to_owned);
                repositories.collect::<std::collections::BTreeSet<_>>()
            };
            let expected = if is_long {
                Default::default()
            } else {
                repositories(&original)
            };
            assert_eq!(repositories(&request), expected, "{registry}");
        }
        for names in [&["acr-pull-x"][..], &["acr-pull-y", "acr-pull-x"]] {
            assert_eq!(patch(&request.object, names), patch(&original.object, names));
        }
        assert!(format!("{request:?}").len() < 4000, "{request:?} is small");
    }
}

#[test]
fn values_above_a_limit_are_refused() {
    let problem = |object: Value| match parse(review(object).to_string().as_bytes()) {
        Ok(request) => request.detached().map(drop).unwrap_err(),
        Err((uid, problem)) => {
            assert_eq!(uid.as_deref(), Some("u-1"));
            problem
        }
    };
    let images: Vec<_> = (0..65)
        .map(|n| json!({"image": format!("r{n}.azurecr.io/app")}))
        .collect();
    for (object, message) in [
        (
            json!({"metadata": {}, "spec": {"containers": vec![json!({}); 1001]}}),
            "InvalidReview: the AdmissionReview is invalid (the Pod has more than 1000 containers of one kind",
        ),
        (
            json!({"metadata": {}, "spec": {"imagePullSecrets": vec![json!({}); 129]}}),
            "InvalidReview: the AdmissionReview is invalid (the Pod has more than 128 imagePullSecrets",
        ),
        (
            json!({"metadata": {}, "spec": {"containers": images}}),
            "InvalidReview: the Pod's images are from more than 64 registries",
        ),
        (
            json!({"metadata": {"annotations": {ACCESS_TOKEN_ANNOTATION: "a,".repeat(5000)}}}),
            "InvalidAnnotation: annotation acr-pull.dev/access-token is longer than 8192 bytes",
        ),
        (
            json!({"metadata": {"labels": {"acr-pull.dev/injected": ["x"]}}, "spec": "x".repeat(99999)}),
            "InvalidReview: ",
        ),
    ] {
        let problem = problem(object).to_string();
        assert!(problem.starts_with(message), "{problem}");
        assert!(problem.len() < 1000, "{problem}");
    }
    let mut long = review(json!({}));
    long["request"]["uid"] = "u".repeat(9999).into();
    let (uid, _) = parse(long.to_string().as_bytes()).unwrap_err();
    assert_eq!(uid, None);
}
