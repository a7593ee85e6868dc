//! The custom resource definitions, with and without External Secrets Operator, on a control plane of their own.

use acr_pull_webhook::{
    crds,
    generator::{ACRAccessToken, ClusterGenerator},
    pull_secret::ACRPullSecret,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testkit::{
    control_plane::{ControlPlane, apply},
    eventually,
    objects::from,
};

/// The two kinds as that operator has them: without our tolerance of null, with a label of its own, with generators of
/// other kinds and with a field that ours does not know.
fn operators() -> Vec<CustomResourceDefinition> {
    let changed = crds::generators().into_iter().map(|crd| {
        let mut crd = serde_json::to_value(crd).unwrap();
        crd["metadata"]["labels"] = json!({"external-secrets.io/component": "controller"});
        let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        not_null(spec);
        if crd["spec"]["names"]["kind"] == "ClusterGenerator" {
            let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            spec["properties"]["kind"]["enum"] = json!(["ACRAccessToken", "UUID"]);
            let generator = &mut spec["properties"]["generator"];
            generator
                .as_object_mut()
                .unwrap()
                .remove("x-kubernetes-preserve-unknown-fields");
            generator["properties"]["uuidSpec"] = json!({"type": "object"});
        } else {
            let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            spec["properties"]["fieldOfTomorrow"] = json!({"type": "string"});
        }
        from(crd)
    });
    changed.collect()
}

fn not_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("nullable");
            fields.values_mut().for_each(not_null);
        }
        Value::Array(items) => items.iter_mut().for_each(not_null),
        _ => {}
    }
}

async fn found(client: &Client) -> Vec<CustomResourceDefinition> {
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    let mut found = Vec::new();
    for crd in crds::generators() {
        found.push(crds.get(&crd.name_any()).await.unwrap());
    }
    found
}

fn is_the_operators(crd: &CustomResourceDefinition) -> bool {
    let text = serde_json::to_string(&crd.spec).unwrap();
    !text.contains("nullable") && crd.labels().contains_key("external-secrets.io/component")
}

async fn install(cluster: &ControlPlane) -> String {
    let done = cluster.shell("deploy/crds.sh").await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Creates one object by what the API server knows, whatever we know.
async fn create(client: &Client, kind: &ApiResource, object: Value) -> DynamicObject {
    let mut whole = json!({"apiVersion": kind.api_version, "kind": kind.kind});
    for (key, value) in object.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        None => Api::all_with(client.clone(), kind),
    };
    eventually("the kind is served", async || {
        api.create(&PostParams::default(), &from(whole.clone()))
            .await
            .ok()
    })
    .await
}

#[testkit::test]
async fn the_operators_kinds_and_ours_do_not_fight_in_either_order() {
    let cluster = ControlPlane::start_own().await;
    let client = cluster.admin().await;
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    let (own, clusters) = (
        ApiResource::erase::<ACRAccessToken>(&()),
        ApiResource::erase::<ClusterGenerator>(&()),
    );

    // The operator first: its kinds stay as they are, ours is added.
    for crd in operators() {
        crds.create(&PostParams::default(), &crd).await.unwrap();
    }
    let spec =
        json!({"registry": "contoso.azurecr.io", "auth": {"workloadIdentity": {}}, "fieldOfTomorrow": "x"});
    create(
        &client,
        &own,
        json!({"metadata": {"name": "theirs", "namespace": "default"}, "spec": spec}),
    )
    .await;
    let uuid = json!({"kind": "UUID", "generator": {"uuidSpec": {}}});
    create(
        &client,
        &clusters,
        json!({"metadata": {"name": "uuid"}, "spec": uuid}),
    )
    .await;
    let before = found(&client).await;
    let said = install(&cluster).await;
    assert!(said.contains("does not belong to acr-pull-webhook"), "{said}");
    let after = found(&client).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.metadata.generation, after.metadata.generation);
        assert!(is_the_operators(after));
    }
    crds.get("acrpullsecrets.acr-pull.dev").await.unwrap();
    // What they know beside us does not hinder us.
    let theirs = Api::<ACRAccessToken>::namespaced(client.clone(), "default");
    assert_eq!(
        theirs.get("theirs").await.unwrap().spec.registry,
        "contoso.azurecr.io"
    );
    let uuid = Api::<ClusterGenerator>::all(client.clone())
        .get("uuid")
        .await
        .unwrap();
    assert_eq!(
        (
            uuid.spec.kind.as_str(),
            uuid.spec.generator.acr_access_token_spec.is_none()
        ),
        ("UUID", true)
    );

    // Of the operator's, the one for the cluster can be left out of its installation: then ours is added.
    let name = operators()[1].name_any();
    crds.delete(&name, &DeleteParams::default()).await.unwrap();
    eventually("the kind is gone", async || {
        crds.get_opt(&name).await.unwrap().is_none().then_some(())
    })
    .await;
    install(&cluster).await;
    let after = found(&client).await;
    assert_eq!(
        (is_the_operators(&after[0]), is_the_operators(&after[1])),
        (true, false)
    );

    // Ours first: they work alone, and again ours may be renewed, until the operator's come.
    for crd in operators() {
        let name = crd.name_any();
        crds.delete(&name, &DeleteParams::default()).await.unwrap();
        eventually("the kind is gone", async || {
            crds.get_opt(&name).await.unwrap().is_none().then_some(())
        })
        .await;
    }
    for _ in 0..2 {
        let said = install(&cluster).await;
        assert!(!said.contains("does not belong to acr-pull-webhook"), "{said}");
    }
    let spec = json!({"registry": "contoso.azurecr.io", "auth": {"workloadIdentity": {}}});
    create(
        &client,
        &own,
        json!({"metadata": {"name": "ours", "namespace": "default"}, "spec": spec}),
    )
    .await;
    // The other kinds of generator pass through our copy unread.
    let uuid = json!({"kind": "UUID", "generator": {"uuidSpec": {"a": 1}}});
    let kept = create(
        &client,
        &clusters,
        json!({"metadata": {"name": "uuid"}, "spec": uuid}),
    )
    .await;
    assert_eq!(kept.data["spec"]["generator"]["uuidSpec"]["a"], 1);
    // As helm and kubectl do it, by server-side apply and by client-side apply.
    for (number, crd) in operators().iter().enumerate() {
        if number == 0 {
            apply(&crds, crd).await;
            continue;
        }
        let text = serde_json::to_string(crd).unwrap();
        let done = cluster
            .shell(&format!("kubectl apply --filename - <<'JSON'\n{text}\nJSON\n"))
            .await;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let before = found(&client).await;
    let said = install(&cluster).await;
    assert!(said.contains("does not belong to acr-pull-webhook"), "{said}");
    for (before, after) in before.iter().zip(&found(&client).await) {
        assert_eq!(before.metadata.generation, after.metadata.generation);
        assert!(after.labels().contains_key("external-secrets.io/component"));
    }
    assert_eq!(
        theirs.get("ours").await.unwrap().spec.registry,
        "contoso.azurecr.io"
    );
}

#[testkit::test]
async fn an_acr_pull_secret_that_makes_no_sense_is_refused_by_the_api_server() {
    let cluster = ControlPlane::start_own().await;
    let client = cluster.admin().await;
    install(&cluster).await;
    let api = Api::<ACRPullSecret>::namespaced(client, "default");
    let object =
        |name: &str, spec: Value| from::<ACRPullSecret>(json!({"metadata": {"name": name}, "spec": spec}));
    let generator = json!({"kind": "ACRAccessToken", "name": "contoso"});
    for (name, spec, words) in [
        ("mine", json!({"generator": generator}), "annotate a Pod instead"),
        (
            "acr-pull-x",
            json!({"generator": {"kind": "Secret", "name": "x"}}),
            "kind is ACRAccessToken or ClusterGenerator",
        ),
        (
            "acr-pull-x",
            json!({"generator": {"kind": "ACRAccessToken", "name": ""}}),
            "spec.generator.name",
        ),
        (
            "acr-pull-x",
            json!({"generator": generator, "serviceAccountNamespace": "b"}),
            "needs serviceAccountName",
        ),
        (
            "acr-pull-x",
            json!({"generator": generator, "serviceAccountName": "a", "serviceAccountNamespace": "b"}),
            "only a ClusterGenerator",
        ),
    ] {
        let refused = api
            .create(&PostParams::default(), &object(name, spec))
            .await
            .unwrap_err();
        assert!(refused.to_string().contains(words), "{words}: {refused}");
    }
    let spec = json!({"generator": generator, "serviceAccountName": "app"});
    api.create(&PostParams::default(), &object("acr-pull-x", spec))
        .await
        .unwrap();
    let change = |spec: Value| Patch::Merge(json!({"spec": spec}));
    let params = PatchParams::default();
    let refused = api
        .patch(
            "acr-pull-x",
            &params,
            &change(json!({"generator": {"name": "other"}})),
        )
        .await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("the generator cannot change")
    );
    // The generator may come to name another service account, or none.
    for account in [json!("other"), json!(null)] {
        let changed = change(json!({"serviceAccountName": account}));
        api.patch("acr-pull-x", &params, &changed).await.unwrap();
    }
}

/// Attempts 13 and 14, where our own copy of the kinds is installed.
#[testkit::test]
async fn a_generator_with_a_field_that_is_too_long_is_refused_by_the_api_server() {
    let cluster = ControlPlane::start_own().await;
    let client = cluster.admin().await;
    install(&cluster).await;
    let kind = ApiResource::erase::<ACRAccessToken>(&());
    let spec = |field: &str, value: Value| {
        let mut spec = json!({"registry": "contoso.azurecr.io", "auth": {
            "managedIdentity": {"identityId": "x"},
            "workloadIdentity": {"serviceAccountRef": {"name": "app", "audiences": []}}}});
        match spec.pointer_mut(field) {
            Some(place) => *place = value,
            None => spec[&field[1..]] = value,
        }
        json!({"metadata": {"name": "large", "namespace": "default"}, "spec": spec})
    };
    create(&client, &kind, json!({"metadata": {"name": "small", "namespace": "default"}, "spec": spec("/scope", json!("a"))["spec"]})).await;
    let api = Api::<DynamicObject>::namespaced_with(client, "default", &kind);
    let audiences = "/auth/workloadIdentity/serviceAccountRef/audiences";
    for (field, value) in [
        ("/scope", json!("a".repeat(4097))),
        ("/scope", json!("repository:a:pull ".repeat(50_000))),
        ("/registry", json!("a".repeat(254))),
        ("/tenantId", json!("a".repeat(254))),
        ("/auth/managedIdentity/identityId", json!("a".repeat(513))),
        (audiences, json!(vec!["a"; 9])),
        (audiences, json!(vec!["a"; 350_000])),
        (audiences, json!(["a".repeat(513)])),
    ] {
        let mut object = spec(field, value);
        object["apiVersion"] = json!(kind.api_version);
        object["kind"] = json!(kind.kind);
        let refused = api
            .create(&PostParams::default(), &from(object))
            .await
            .unwrap_err();
        let refused = refused.to_string();
        assert!(
            refused.contains("Too long")
                || refused.contains("Too many")
                || refused.contains("may not be more than"),
            "{field}: {refused:.300}"
        );
    }
}
