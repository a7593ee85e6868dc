//! The custom resource definitions, with and without External Secrets Operator (ESO). Each test has a control plane of
//! its own.

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

const COMPONENT: &str = "external-secrets.io/component";
const NOT_OWNED: &str = "does not belong to acr-pull-webhook";

/// Both kinds of generator as ESO defines them: without nullable fields, with a label, with generators of other kinds
/// and with an additional field.
fn eso_crds() -> Vec<CustomResourceDefinition> {
    let changed = crds::generators().into_iter().map(|crd| {
        let mut crd = serde_json::to_value(crd).unwrap();
        crd["metadata"]["labels"] = json!({COMPONENT: "controller"});
        let is_cluster_generator = crd["spec"]["names"]["kind"] == "ClusterGenerator";
        let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        remove_nullable(spec);
        if is_cluster_generator {
            spec["properties"]["kind"]["enum"] = json!(["ACRAccessToken", "UUID"]);
            let generator = &mut spec["properties"]["generator"];
            let fields = generator.as_object_mut().unwrap();
            fields.remove("x-kubernetes-preserve-unknown-fields");
            generator["properties"]["uuidSpec"] = json!({"type": "object"});
        } else {
            spec["properties"]["fieldOfTomorrow"] = json!({"type": "string"});
        }
        from(crd)
    });
    changed.collect()
}

fn remove_nullable(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("nullable");
            fields.values_mut().for_each(remove_nullable);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nullable),
        _ => {}
    }
}

fn is_of_eso(crd: &CustomResourceDefinition) -> bool {
    let text = serde_json::to_string(&crd.spec).unwrap();
    !text.contains("nullable") && crd.labels().contains_key(COMPONENT)
}

/// A control plane without CRDs.
struct Crds {
    cluster: std::sync::Arc<ControlPlane>,
    client: Client,
    api: Api<CustomResourceDefinition>,
}

impl Crds {
    async fn start() -> Self {
        let cluster = ControlPlane::start_own().await;
        let client = cluster.admin().await;
        Self {
            api: Api::all(client.clone()),
            cluster,
            client,
        }
    }

    /// Runs the installation of this project's CRDs; returns its output.
    async fn install(&self) -> String {
        self.shell("deploy/crds.sh").await
    }

    async fn shell(&self, line: &str) -> String {
        let output = self.cluster.shell(line).await;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    async fn generators(&self) -> Vec<CustomResourceDefinition> {
        let mut found = Vec::new();
        for crd in crds::generators() {
            found.push(self.api.get(&crd.name_any()).await.unwrap());
        }
        found
    }

    async fn delete(&self, name: &str) {
        self.api.delete(name, &DeleteParams::default()).await.unwrap();
        eventually("the kind is deleted", async || {
            self.api.get_opt(name).await.unwrap().is_none().then_some(())
        })
        .await;
    }

    /// Creates an object without the types of this project.
    async fn create<K>(&self, object: Value) -> DynamicObject
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let kind = ApiResource::erase::<K>(&());
        let mut whole = json!({"apiVersion": kind.api_version, "kind": kind.kind});
        for (key, value) in object.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind),
            None => Api::all_with(self.client.clone(), &kind),
        };
        let params = PostParams::default();
        eventually("the kind is served", async || {
            api.create(&params, &from(whole.clone())).await.ok()
        })
        .await
    }

    async fn create_generator(&self, name: &str, more: Value) {
        let mut spec = json!({"registry": "contoso.azurecr.io", "auth": {"workloadIdentity": {}}});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let metadata = json!({"name": name, "namespace": "default"});
        self.create::<ACRAccessToken>(json!({"metadata": metadata, "spec": spec}))
            .await;
    }

    async fn create_uuid_generator(&self, spec: Value) -> DynamicObject {
        let spec = json!({"kind": "UUID", "generator": {"uuidSpec": spec}});
        self.create::<ClusterGenerator>(json!({"metadata": {"name": "uuid"}, "spec": spec}))
            .await
    }

    /// Asserts that this project's types can read a generator.
    async fn assert_readable(&self, name: &str) {
        let api = Api::<ACRAccessToken>::namespaced(self.client.clone(), "default");
        assert_eq!(api.get(name).await.unwrap().spec.registry, "contoso.azurecr.io");
    }

    /// Installs this project's CRDs, and asserts that those of ESO are unchanged.
    async fn install_beside_eso(&self) -> Vec<CustomResourceDefinition> {
        let before = self.generators().await;
        let output = self.install().await;
        assert!(output.contains(NOT_OWNED), "{output}");
        let after = self.generators().await;
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(before.metadata.generation, after.metadata.generation);
        }
        after
    }
}

#[testkit::test]
async fn the_crds_of_eso_are_kept_if_they_are_installed_first() {
    let crds = Crds::start().await;
    for crd in eso_crds() {
        crds.api.create(&PostParams::default(), &crd).await.unwrap();
    }
    crds.create_generator("theirs", json!({"fieldOfTomorrow": "x"}))
        .await;
    crds.create_uuid_generator(json!({})).await;
    let after = crds.install_beside_eso().await;
    assert!(after.iter().all(is_of_eso));
    crds.api.get("acrpullsecrets.acr-pull.dev").await.unwrap();
    // Unknown fields and kinds of ESO can be read.
    crds.assert_readable("theirs").await;
    let uuid = Api::<ClusterGenerator>::all(crds.client.clone());
    let uuid = uuid.get("uuid").await.unwrap();
    assert_eq!(uuid.spec.kind, "UUID");
    assert!(uuid.spec.generator.acr_access_token_spec.is_none());

    // ESO can be installed without its ClusterGenerator: then the CRD of this project is added.
    crds.delete(&eso_crds()[1].name_any()).await;
    crds.install().await;
    let after = crds.generators().await;
    assert!(is_of_eso(&after[0]) && !is_of_eso(&after[1]));
}

#[testkit::test]
async fn the_crds_of_eso_replace_those_of_this_project() {
    let crds = Crds::start().await;
    for _ in 0..2 {
        let output = crds.install().await;
        assert!(!output.contains(NOT_OWNED), "{output}");
    }
    crds.create_generator("own", json!({})).await;
    // The CRD of this project keeps the fields of other kinds of generator.
    let kept = crds.create_uuid_generator(json!({"a": 1})).await;
    assert_eq!(kept.data["spec"]["generator"]["uuidSpec"]["a"], 1);
    // Helm installs ESO by server-side apply, and kubectl by client-side apply.
    let [by_helm, by_kubectl] = eso_crds().try_into().unwrap();
    apply(&crds.api, &by_helm).await;
    let text = serde_json::to_string(&by_kubectl).unwrap();
    crds.shell(&format!("kubectl apply --filename - <<'JSON'\n{text}\nJSON\n"))
        .await;
    let after = crds.install_beside_eso().await;
    assert!(after.iter().all(|crd| crd.labels().contains_key(COMPONENT)));
    crds.assert_readable("own").await;
}

#[testkit::test]
async fn the_api_server_refuses_inconsistent_acr_pull_secrets() {
    let crds = Crds::start().await;
    crds.install().await;
    let api = Api::<ACRPullSecret>::namespaced(crds.client, "default");
    let object =
        |name: &str, spec: Value| from::<ACRPullSecret>(json!({"metadata": {"name": name}, "spec": spec}));
    let generator = json!({"kind": "ACRAccessToken", "name": "contoso"});
    for (name, spec, text) in [
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
        assert!(refused.to_string().contains(text), "{text}: {refused}");
    }
    let spec = json!({"generator": generator, "serviceAccountName": "app"});
    api.create(&PostParams::default(), &object("acr-pull-x", spec))
        .await
        .unwrap();
    check_immutability(&api).await;
}

/// Asserts that the generator of `acr-pull-x` cannot change, and that its service account can.
async fn check_immutability(api: &Api<ACRPullSecret>) {
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
    // The generator may be changed to another service account or to none.
    for account in [json!("other"), json!(null)] {
        let changed = change(json!({"serviceAccountName": account}));
        api.patch("acr-pull-x", &params, &changed).await.unwrap();
    }
}

/// With the CRDs of this project. External Secrets Operator has CRDs of its own.
#[testkit::test]
async fn the_api_server_refuses_generators_with_large_fields() {
    let crds = Crds::start().await;
    crds.install().await;
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
    crds.create_generator("small", json!({"scope": "a"})).await;
    let api = Api::<DynamicObject>::namespaced_with(crds.client.clone(), "default", &kind);
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
