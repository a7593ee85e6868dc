//! Pods in the forms in which controllers and users create them.

use crate::upkeep::wait_until_ready;
use azure_emulator::Endpoint;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};
use testkit::{
    azure::add_application,
    env::TestEnv,
    eventually,
    objects::{
        ANNOTATION, CLIENT_ID, from, pod, pod_json, pull_secret_name, pull_secret_names, unnamed_pod,
        with_account,
    },
};

/// The Pods of a Job are created by a controller, with a generated name.
#[testkit::test]
async fn each_pod_of_a_job_has_the_pull_secret() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let mut template = pod_json(
        "",
        "contoso.azurecr.io/team-a/app:1",
        json!({ANNOTATION: "contoso"}),
    );
    template["metadata"]["name"].take();
    template["spec"]["restartPolicy"] = json!("Never");
    let job: Job = from(json!({
        "metadata": {"name": "migration"},
        "spec": {"backoffLimit": 0, "parallelism": 3, "completions": 3, "template": template},
    }));
    let jobs: Api<Job> = namespace.api();
    jobs.create(&PostParams::default(), &job).await.unwrap();
    let of_job = ListParams::default().labels("job-name=migration");
    let pods = eventually("the Pods of the Job exist", async || {
        let pods = namespace.pods().list(&of_job).await.unwrap().items;
        (pods.len() == 3).then_some(pods)
    })
    .await;
    for pod in &pods {
        assert_eq!(pull_secret_name(pod), pull_secret_name(&pods[0]));
    }
    env.assert_pulls(namespace, &pull_secret_name(&pods[0]), env.team_a.repository)
        .await;
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);
}

#[testkit::test]
async fn twenty_and_duplicate_pull_secrets_of_a_pod_are_kept() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let with_own = |own: &[String]| {
        let mut pod = unnamed_pod("contoso");
        let own: Vec<_> = own.iter().map(|name| json!({"name": name})).collect();
        pod.spec.as_mut().unwrap().image_pull_secrets = from(Value::Array(own));
        pod
    };
    let mut own: Vec<_> = (0..20).map(|n| format!("own-{n}")).collect();
    own.extend(["own-3".to_owned(), "own-3".to_owned()]);
    let names = pull_secret_names(&namespace.create_pod(&with_own(&own)).await);
    let (injected, kept) = names.split_last().unwrap();
    assert_eq!(kept, own);
    namespace.credentials(injected).await;
    // A template that names the pull secret already, even twice, gets it no third time.
    own.insert(7, injected.clone());
    own.push(injected.clone());
    assert_eq!(
        pull_secret_names(&namespace.create_pod(&with_own(&own)).await),
        own
    );
}

#[testkit::test]
async fn names_may_have_253_characters() {
    const CLIENT: &str = "cccccccc-0253-cccc-cccc-cccccccccccc";
    let account = "a".repeat(253);
    let env = TestEnv::with(&[], |world| add_application(world, &account, CLIENT)).await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_service_account(&account, &[(CLIENT_ID, CLIENT)])
        .await;
    let mut names = Vec::new();
    // The names differ only after the part that fits into the name of a pull secret.
    for last in ["x", "y"] {
        let generator = format!("{}{last}", "g.".repeat(126));
        assert_eq!(generator.len(), 253);
        namespace.apply_generator(&generator, json!({})).await;
        let longest = with_account(pod(&format!("{}{last}", "p".repeat(252)), &generator), &account);
        let created = namespace.create_pod(&longest).await;
        let name = pull_secret_name(&created);
        assert!(name.len() <= 253, "{name}");
        env.assert_pulls(namespace, &name, env.team_a.repository).await;
        assert_eq!(namespace.pull_secret(&name).await.spec.generator.name, generator);
        assert_eq!(created.annotations()["acr-pull.dev/pull-secrets"], name);
        wait_until_ready(namespace, &name).await;
        names.push(name);
    }
    assert_ne!(names[0], names[1]);
}

#[testkit::test]
async fn a_pod_of_init_containers_from_the_registry_has_the_pull_secret() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace.set_default_generator(json!("contoso")).await;
    let init: Pod = from(json!({
        "metadata": {"generateName": "init-"},
        "spec": {
            "serviceAccountName": "app",
            "initContainers": [{"name": "migrate", "image": "contoso.azurecr.io/team-a/app:1"}],
            "containers": [{"name": "app", "image": "docker.io/library/busybox:1"}],
        },
    }));
    let name = eventually("the label applies", async || {
        pull_secret_names(&namespace.create_pod(&init).await).pop()
    })
    .await;
    env.assert_pulls(namespace, &name, env.team_a.repository).await;
}
