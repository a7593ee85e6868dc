//! The client id and client secret of a service principal, read from their Secrets each time
//! they are needed: by name, with a right that is given for each such Secret.

use super::{SecretKey, ServicePrincipal};
use crate::{
    kubernetes::{self, CallError, api_problem},
    problem::{Problem, Reason},
};
use k8s_openapi::api::{authentication::v1::SelfSubjectReview, core::v1::Secret};
use kube::{
    Api, Client, Resource,
    api::{GetParams, PostParams},
    core::Request,
};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Reads client secrets.
#[derive(Clone)]
pub struct ClientSecrets {
    client: Client,
    /// Our own user name, asked for when a refusal has to name it.
    user: Arc<OnceCell<String>>,
}

/// A service principal's proof.
pub struct ClientSecret {
    /// The Entra application (client) id.
    pub client_id: String,
    /// The client secret.
    pub secret: SecretString,
}

// === impl ClientSecrets ===

impl ClientSecrets {
    /// A reader of client secrets.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            user: Arc::default(),
        }
    }

    /// Reads client id and client secret, which usually are in one Secret.
    pub async fn read(&self, principal: &ServicePrincipal) -> Result<ClientSecret, Problem> {
        let (id_key, secret_key) = (&principal.client_id, &principal.client_secret);
        let holder = self.get(secret_key).await?;
        let secret = value(&holder, secret_key)?;
        let client_id = if (&id_key.namespace, &id_key.name) == (&secret_key.namespace, &secret_key.name) {
            value(&holder, id_key)?
        } else {
            value(&self.get(id_key).await?, id_key)?
        };
        // The value is not shown: the two keys are easily taken for one another.
        if !super::is_guid(client_id.expose_secret()) {
            return Err(Problem::new(
                Reason::SecretInvalid,
                format!("{id_key} is not a client id, which is a GUID; correct it"),
            ));
        }
        Ok(ClientSecret {
            client_id: client_id.expose_secret().to_owned(),
            secret,
        })
    }

    async fn get(&self, key: &SecretKey) -> Result<Secret, Problem> {
        let SecretKey { namespace, name, .. } = key;
        let what = format!("reading Secret {namespace}/{name}");
        let call = async {
            let url = Secret::url_path(&(), Some(namespace));
            let request = Request::new(url).get(name, &GetParams::default());
            let request = request.map_err(kube::Error::BuildRequest)?;
            kubernetes::decoded::<Secret>(&self.client, request).await
        };
        match kubernetes::bounded(&what, call).await {
            Ok(secret) => Ok(secret),
            Err(CallError::Api(s)) if s.code == 404 => Err(Problem::new(
                Reason::SecretNotFound,
                format!(
                    "Secret {name:?}, which shall hold the service principal, does not exist in namespace {namespace}; \
                     create it, or correct spec.auth.servicePrincipal.secretRef"
                ),
            )),
            Err(CallError::Api(s)) if s.code == 403 => Err(self.forbidden(namespace, name).await),
            Err(error) => Err(api_problem(&what, error)),
        }
    }

    /// Tells the Role that is missing, ready to paste.
    async fn forbidden(&self, namespace: &str, secret: &str) -> Problem {
        let user = self.user.get_or_try_init(|| self.who_am_i()).await;
        let subject = user.map_or_else(|_| "--user=USER".to_owned(), |user| subject(user));
        let role = format!("acr-pull-webhook-reads-{secret}");
        Problem::new(
            Reason::SecretReadForbidden,
            format!(
                "the webhook may not read Secret {namespace}/{secret}, which holds the service principal; whoever owns it \
                 can allow that: kubectl create role {role} --namespace {namespace} --verb=get --resource=secrets \
                 --resource-name={secret} && kubectl create rolebinding {role} --namespace {namespace} --role={role} {subject}"
            ),
        )
    }

    /// Source: <https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/self-subject-review-v1/>.
    async fn who_am_i(&self) -> Result<String, ()> {
        let api = Api::<SelfSubjectReview>::all(self.client.clone());
        let (params, review) = (PostParams::default(), SelfSubjectReview::default());
        let reply = kubernetes::bounded("asking for our own name", api.create(&params, &review)).await;
        let user = reply.ok().and_then(|review| review.status?.user_info?.username);
        user.ok_or(())
    }
}

/// The flag by which `kubectl create rolebinding` names this user.
fn subject(user: &str) -> String {
    let account = user
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    match account {
        // It goes into a command.
        _ if !user
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b":.-_@/".contains(&b)) =>
        {
            "--user=USER".to_owned()
        }
        Some((namespace, name)) => format!("--serviceaccount={namespace}:{name}"),
        None => format!("--user={user}"),
    }
}

fn value(holder: &Secret, key: &SecretKey) -> Result<SecretString, Problem> {
    let invalid = |why: &str| Problem::new(Reason::SecretInvalid, format!("{key} {why}"));
    let data = holder.data.as_ref().and_then(|data| data.get(&key.key));
    let bytes = data.ok_or_else(|| {
        invalid("does not exist; add it, or correct spec.auth.servicePrincipal.secretRef of the generator")
    })?;
    let text = std::str::from_utf8(&bytes.0).map_err(|_| invalid("is not text; correct it"))?;
    match text.trim() {
        "" => Err(invalid("is empty; set it")),
        // What `echo` leaves at the end is no part of it.
        trimmed => Ok(trimmed.to_owned().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn key(key: &str) -> SecretKey {
        SecretKey {
            namespace: "team-a".to_owned(),
            name: "sp".to_owned(),
            key: key.to_owned(),
        }
    }

    #[test]
    fn a_value_is_read_without_the_blanks_around_it_or_refused_without_being_shown() {
        let data = [("good", "hunter2\n"), ("empty", " \n"), ("binary", "\u{0}")];
        let mut holder = Secret {
            data: Some(data.map(|(k, v)| (k.to_owned(), ByteString(v.into()))).into()),
            ..Secret::default()
        };
        if let Some(data) = &mut holder.data {
            data.insert("binary".to_owned(), ByteString(vec![0xff, 0xfe]));
        }
        assert_eq!(value(&holder, &key("good")).unwrap().expose_secret(), "hunter2");
        for (bad, why) in [
            ("empty", "is empty"),
            ("binary", "is not text"),
            ("none", "does not exist"),
        ] {
            let problem = value(&holder, &key(bad)).unwrap_err();
            assert_eq!(problem.reason, Reason::SecretInvalid);
            assert!(
                problem.message.contains(why) && problem.message.contains("team-a/sp"),
                "{problem}"
            );
        }
    }

    #[test]
    fn who_we_are_is_told_as_kubectl_wants_it() {
        assert_eq!(
            subject("system:serviceaccount:acr-pull-webhook:webhook"),
            "--serviceaccount=acr-pull-webhook:webhook"
        );
        assert_eq!(subject("admin"), "--user=admin");
        assert_eq!(subject("admin; id"), "--user=USER");
    }
}
