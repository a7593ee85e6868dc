//! Reads the client id and client secret of a service principal from their Secrets each time they are needed. Each
//! Secret is read by name, with permission granted for that Secret only.

use super::{SecretKey, ServicePrincipal};
use crate::{
    kubernetes::{self, CallError, api_problem},
    names::is_guid,
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

/// Reads the credentials of service principals.
#[derive(Clone)]
pub struct ClientSecretReader {
    client: Client,
    /// The webhook's own user name, requested when a refusal has to contain it.
    user: Arc<OnceCell<String>>,
}

impl ClientSecretReader {
    /// A reader that sends its requests with `client`.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            user: Arc::default(),
        }
    }

    /// Reads the client id and the client secret, which are usually in one Secret.
    pub async fn read(&self, principal: &ServicePrincipal) -> Result<ClientCredentials, Problem> {
        let (id_key, secret_key) = (&principal.client_id, &principal.client_secret);
        let object = self.get(secret_key).await?;
        let secret = read_value(&object, secret_key)?;
        let client_id = if (&id_key.namespace, &id_key.name) == (&secret_key.namespace, &secret_key.name) {
            read_value(&object, id_key)?
        } else {
            read_value(&self.get(id_key).await?, id_key)?
        };
        // The message does not contain the value: it is the client secret if the two keys were swapped.
        if !is_guid(client_id.expose_secret()) {
            return Err(Problem::new(
                Reason::SecretInvalid,
                format!("{id_key} does not hold a client id, which is a GUID: correct the value"),
            ));
        }
        Ok(ClientCredentials {
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
            kubernetes::send_and_decode::<Secret>(&self.client, request).await
        };
        match kubernetes::try_call(&what, call).await {
            Ok(secret) => Ok(secret),
            Err(CallError::Api(s)) if s.code == 404 => Err(Problem::new(
                Reason::SecretNotFound,
                format!(
                    "Secret {name:?} of spec.auth.servicePrincipal.secretRef does not exist in namespace {namespace}: create \
                     it, or correct the reference"
                ),
            )),
            Err(CallError::Api(s)) if s.code == 403 => Err(self.forbidden(namespace, name).await),
            Err(error) => Err(api_problem(&what, error)),
        }
    }

    /// Describes the missing permission, with the commands that grant it.
    async fn forbidden(&self, namespace: &str, secret: &str) -> Problem {
        let user = self.user.get_or_try_init(|| self.own_user()).await;
        let subject = user.map_or_else(|_| "--user=USER".to_owned(), |user| subject_flag(user));
        let role = format!("acr-pull-webhook-reads-{secret}");
        Problem::new(
            Reason::SecretReadForbidden,
            format!(
                "the webhook may not read Secret {namespace}/{secret} of the service principal: the owner of the Secret can \
                 allow it"
            ),
        )
        .command(format!(
            "kubectl create role {role} --namespace {namespace} --verb=get --resource=secrets --resource-name={secret} && \
             kubectl create rolebinding {role} --namespace {namespace} --role={role} {subject}"
        ))
    }

    /// The webhook's own user name.
    /// Source: <https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/self-subject-review-v1/>.
    async fn own_user(&self) -> Result<String, ()> {
        let api = Api::<SelfSubjectReview>::all(self.client.clone());
        let (params, review) = (PostParams::default(), SelfSubjectReview::default());
        let reply = kubernetes::try_call(
            "reading the webhook's own user name",
            api.create(&params, &review),
        )
        .await;
        let user = reply.ok().and_then(|review| review.status?.user_info?.username);
        user.ok_or(())
    }
}

/// What a service principal authenticates with.
pub struct ClientCredentials {
    /// The client id of the Entra application.
    pub client_id: String,
    /// The client secret.
    pub secret: SecretString,
}

/// The flag that makes this user the subject of `kubectl create rolebinding`.
fn subject_flag(user: &str) -> String {
    let account = user
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    match account {
        // The user name becomes part of a command.
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

fn read_value(object: &Secret, key: &SecretKey) -> Result<SecretString, Problem> {
    let invalid = |why: &str| Problem::new(Reason::SecretInvalid, format!("{key} {why}"));
    let data = object.data.as_ref().and_then(|data| data.get(&key.key));
    let bytes = data
        .ok_or_else(|| invalid("does not exist: add it, or correct spec.auth.servicePrincipal.secretRef"))?;
    let text = std::str::from_utf8(&bytes.0).map_err(|_| invalid("is not UTF-8 text: correct the value"))?;
    match text.trim() {
        "" => Err(invalid("is empty: set a value")),
        // `echo` appends a line break, which is not part of the value.
        trimmed => Ok(trimmed.to_owned().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{NamespaceName, ObjectName};
    use k8s_openapi::ByteString;

    fn key(key: &str) -> SecretKey {
        SecretKey {
            namespace: NamespaceName::new("team-a").unwrap(),
            name: ObjectName::new("sp").unwrap(),
            key: key.to_owned(),
        }
    }

    #[test]
    fn a_value_is_trimmed_and_an_invalid_value_is_refused_without_being_shown() {
        let data = [("good", "hunter2\n"), ("empty", " \n"), ("binary", "\u{0}")];
        let mut object = Secret {
            data: Some(data.map(|(k, v)| (k.to_owned(), ByteString(v.into()))).into()),
            ..Secret::default()
        };
        if let Some(data) = &mut object.data {
            data.insert("binary".to_owned(), ByteString(vec![0xff, 0xfe]));
        }
        assert_eq!(
            read_value(&object, &key("good")).unwrap().expose_secret(),
            "hunter2"
        );
        for (bad, why) in [
            ("empty", "is empty"),
            ("binary", "is not UTF-8 text"),
            ("none", "does not exist"),
        ] {
            let problem = read_value(&object, &key(bad)).unwrap_err();
            assert_eq!(problem.reason, Reason::SecretInvalid);
            assert!(
                problem.fact.contains(why) && problem.fact.contains("team-a/sp"),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_user_becomes_the_subject_flag_of_kubectl_or_a_placeholder() {
        assert_eq!(
            subject_flag("system:serviceaccount:acr-pull-webhook:webhook"),
            "--serviceaccount=acr-pull-webhook:webhook"
        );
        assert_eq!(subject_flag("admin"), "--user=admin");
        assert_eq!(subject_flag("admin; id"), "--user=USER");
    }
}
