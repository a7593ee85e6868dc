//! The registration, the policies, the rights and the network policy.

use chart::{
    helm::{render, set},
    manifests::{Manifests, strings},
};
use serde_json::{Value, json};

const POLICY: &str = "ValidatingAdmissionPolicy";

/// The values of each condition for the names of namespaces, in the entries of the registration.
fn excluded_by_registration(rendered: &Manifests) -> Vec<Value> {
    let webhooks = rendered.only("MutatingWebhookConfiguration")["webhooks"].as_array();
    let entries = webhooks.unwrap().iter();
    let conditions =
        entries.flat_map(|entry| entry["namespaceSelector"]["matchExpressions"].as_array().unwrap());
    let by_name =
        conditions.filter(|c| c["key"] == "kubernetes.io/metadata.name" && c["operator"] == "NotIn");
    by_name.map(|condition| condition["values"].clone()).collect()
}

/// How many policies have this text in a condition.
fn policies_with_condition(rendered: &Manifests, text: &str) -> usize {
    let policies = rendered.of_kind(POLICY).into_iter();
    let with_text = policies.filter(|policy| strings(policy).iter().any(|string| string.contains(text)));
    with_text.count()
}

#[testkit::test]
async fn an_excluded_namespace_is_in_registration_policies_and_options() {
    let rendered = render(set(["webhook.excludedNamespaces={a,b}"])).await;
    let excluded = json!(["kube-system", "acr-pull-webhook", "a", "b"]);
    assert_eq!(
        excluded_by_registration(&rendered),
        [excluded.clone(), excluded.clone()]
    );
    let condition = format!("!(request.namespace in {excluded})");
    assert_eq!(policies_with_condition(&rendered, &condition), 2);
    assert_eq!(rendered.option("EXCLUDED_NAMESPACES"), "a,b");
}

#[testkit::test]
async fn the_policies_apply_only_to_the_watched_namespaces() {
    let rendered = render(set(["namespaces={c,d}"])).await;
    let condition =
        r#"(request.namespace in ["kube-system","acr-pull-webhook"]) && request.namespace in ["c","d"]"#;
    assert_eq!(policies_with_condition(&rendered, condition), 2);
}

/// The order of the webhooks is the order of these names.
#[testkit::test]
async fn the_name_of_the_registration_reaches_rbac_and_options() {
    let rendered = render(set(["webhook.configurationName=zz-last"])).await;
    let registration = rendered.only("MutatingWebhookConfiguration");
    assert_eq!(registration["metadata"]["name"], "zz-last");
    let rights = rendered.named("ClusterRole", "acr-pull-webhook-certificates");
    assert_eq!(rights["rules"][0]["resourceNames"], json!(["zz-last"]));
    assert_eq!(rendered.option("WEBHOOK_CONFIGURATION"), "zz-last");
    let all = rendered.0.iter().flat_map(strings);
    assert_eq!(all.filter(|text| text.contains("zz-last")).count(), 3);
}

#[testkit::test]
async fn egress_is_limited_to_the_given_destinations() {
    let rendered = render(set([
        "networkPolicy.enabled=true",
        "networkPolicy.egressTo[0].ipBlock.cidr=203.0.113.0/24",
    ]))
    .await;
    let rules = rendered.only("NetworkPolicy")["spec"]["egress"]
        .as_array()
        .unwrap();
    let to_api_server: Vec<_> = rules
        .iter()
        .filter(|rule| rule["ports"].as_array().unwrap().contains(&json!({"port": 6443})))
        .collect();
    assert_eq!(to_api_server.len(), 1, "{rules:?}");
    assert_eq!(
        to_api_server[0]["to"],
        json!([{"ipBlock": {"cidr": "203.0.113.0/24"}}])
    );
}

/// A Deployment Safeguard of AKS.
#[testkit::test]
async fn two_services_do_not_have_the_same_selector() {
    let rendered = render(set(["serviceMonitor.enabled=true"])).await;
    let services = rendered.of_kind("Service");
    assert_eq!(services.len(), 2);
    let [first, second] = [0, 1].map(|index| services[index]["spec"]["selector"].as_object().unwrap());
    assert_ne!(first, second);
}
