//! The pull secret in the cluster. Its conditions are written by the webhook's own Pods, so they also show whether
//! these reach Entra and the registry.

use crate::{
    check::{api::ApiServer, reason::Reason, report::Finding},
    kubernetes::{self, CallError},
    pull_secret::{ACRPullSecret, PullSecretPlan},
    untrusted::UntrustedText,
};
use jiff::Timestamp;
use kube::Api;

const CHECK: &str = "pull secret";

/// The findings about the pull secret of this plan.
pub async fn state(api: &ApiServer, plan: &PullSecretPlan) -> Vec<Finding> {
    let (namespace, name) = (plan.namespace(), plan.name());
    let objects = Api::<ACRPullSecret>::namespaced(api.client.clone(), namespace);
    let found = kubernetes::try_call("reading the pull secret", objects.get_opt(name)).await;
    match found {
        Ok(Some(found)) => vec![judge(&found, plan, Timestamp::now())],
        Ok(None) => {
            let message = format!("{name} does not exist yet: no Pod has requested it");
            vec![Finding::ok(CHECK, message)]
        }
        Err(CallError::Api(status)) if status.code == 403 => {
            let message = format!("you may not read ACRPullSecrets in namespace {namespace}");
            vec![Finding::unknown(CHECK, Reason::NotPermitted, message)]
        }
        Err(error) => {
            let message = format!(
                "{name} could not be read: {}",
                UntrustedText::new(&error.to_string())
            );
            vec![Finding::unknown(CHECK, Reason::ApiServerUnreachable, message)]
        }
    }
}

fn judge(found: &ACRPullSecret, plan: &PullSecretPlan, now: Timestamp) -> Finding {
    let (namespace, name) = (plan.namespace(), plan.name());
    let show = format!("kubectl describe acrpullsecret --namespace {namespace} {name}");
    let not_ready =
        |message: String| Finding::failed(CHECK, Reason::PullSecretNotReady, message).command(show.clone());
    let Some(status) = &found.status else {
        return not_ready(format!(
            "{name} has no status yet: the webhook has not issued its token"
        ));
    };
    if let Some(failing) = status
        .conditions
        .iter()
        .find(|condition| condition.status != "True")
    {
        return not_ready(format!(
            "the webhook reports for {name} {}=False, {}: {}",
            failing.type_,
            UntrustedText::new(&failing.reason),
            UntrustedText::new(&failing.message).at_most(1024)
        ));
    }
    let Some(expires) = &status.expiration_time else {
        return not_ready(format!("{name} has no token yet"));
    };
    let left = expires.0.duration_since(now).as_secs() / 60;
    if left <= 0 {
        let message = format!(
            "the token of {name} expired {} minutes ago, and no replica has renewed it",
            -left
        );
        return not_ready(message);
    }
    Finding::ok(
        CHECK,
        format!("the webhook has issued {name}, whose token is valid for {left} more minutes"),
    )
}
