//! The roles of users: `view`, `edit` and `admin` include the kinds of the webhook.

use super::release::Release;
use chart::helm::set;
use testkit::eventually;

const GENERATORS: &str = "acraccesstokens.generators.external-secrets.io";
const CLUSTER_GENERATORS: &str = "clustergenerators.generators.external-secrets.io";
const PULL_SECRETS: &str = "acrpullsecrets.acr-pull.dev";

impl Release {
    /// Whether a user may do this in the namespace `default`.
    async fn can(&self, user: &str, verb: &str, resource: &str) -> bool {
        let can_i = self.kubectl("auth can-i --namespace default --as");
        // kubectl fails if the answer is no.
        let answer = can_i.args([user, verb, resource]).outcome().await;
        answer.is_ok_and(|answer| answer.trim() == "yes")
    }

    async fn assert_can(&self, user: &str, verb: &str, resource: &str) {
        assert!(
            self.can(user, verb, resource).await,
            "{user} cannot {verb} {resource}"
        );
    }

    async fn assert_cannot(&self, user: &str, verb: &str, resource: &str) {
        assert!(
            !self.can(user, verb, resource).await,
            "{user} can {verb} {resource}"
        );
    }

    /// Waits until the controller of aggregated roles has given or removed a right.
    async fn wait_until(&self, expected: bool, user: &str, verb: &str, resource: &str) {
        let what = format!("whether {user} can {verb} {resource} is {expected}");
        eventually(&what, async || {
            (self.can(user, verb, resource).await == expected).then_some(())
        })
        .await;
    }

    /// Binds each role to a user of the same name.
    async fn bind_roles(&self) {
        for role in ["view", "edit", "admin"] {
            let binding = "create rolebinding --namespace default";
            let binding = self
                .kubectl(binding)
                .args([role, "--clusterrole", role, "--user", role]);
            binding.succeed().await;
        }
    }
}

#[testkit::test]
async fn view_edit_and_admin_include_the_kinds_of_the_webhook() {
    let release = Release::none().await;
    release.bind_roles().await;
    for role in ["view", "edit", "admin"] {
        release.assert_cannot(role, "get", PULL_SECRETS).await;
        release.assert_cannot(role, "create", GENERATORS).await;
    }
    release.install(set([])).await;
    for role in ["view", "edit", "admin"] {
        release.wait_until(true, role, "get", GENERATORS).await;
        release.assert_can(role, "list", PULL_SECRETS).await;
    }
    release.assert_cannot("view", "create", GENERATORS).await;
    for role in ["edit", "admin"] {
        release.wait_until(true, role, "create", GENERATORS).await;
        release.assert_can(role, "delete", GENERATORS).await;
        release.assert_cannot(role, "delete", PULL_SECRETS).await;
        release.assert_cannot(role, "patch", PULL_SECRETS).await;
        release.assert_cannot(role, "create", CLUSTER_GENERATORS).await;
    }
    release.uninstall().await;
}

#[testkit::test]
async fn each_role_can_be_left_without_the_kinds_of_the_webhook() {
    let release = Release::none().await;
    release.bind_roles().await;
    release.install(set([])).await;
    release.wait_until(true, "edit", "create", GENERATORS).await;
    release.wait_until(true, "admin", "create", GENERATORS).await;
    // Only administrators of a namespace write generators.
    let mut flags = set(["rbac.aggregateToView=false,rbac.aggregateToEdit=false"]);
    release.upgrade(&flags).await;
    release.wait_until(false, "edit", "get", GENERATORS).await;
    release.assert_cannot("edit", "create", GENERATORS).await;
    release.assert_cannot("view", "get", PULL_SECRETS).await;
    release.assert_can("admin", "create", GENERATORS).await;
    flags.extend(set(["rbac.aggregateToAdmin=false"]));
    release.upgrade(&flags).await;
    release.wait_until(false, "admin", "get", GENERATORS).await;
    release.uninstall().await;
}
