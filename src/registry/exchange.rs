//! ACR's token exchange: Entra token → refresh token (3 h) → access token (75 min, with a scope).
//! Source: <https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md>.

use super::{RegistryHost, Scope, clock::AzureClock, scope::Granted};
use crate::{
    foreign::Foreign,
    identity::EntraToken,
    jwt,
    problem::{Problem, Reason},
    telemetry::{Hop, Metrics},
    transport::{self, Caller, Gates, Preconnector, Reply},
};
use jiff::Timestamp;
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};

/// A token that pulls, and when it ends.
#[derive(Debug)]
pub struct PullToken {
    /// The token.
    pub secret: SecretString,
    /// Its own `exp`, by our clock.
    pub expires: Timestamp,
    /// What the token lacks of its scope, where it says what it opens.
    pub lacks: Option<Problem>,
}

/// Talks to the token endpoints of registries.
#[derive(Clone)]
pub struct RegistryClient {
    http: reqwest::Client,
    preconnector: Preconnector,
    gates: Gates,
    clock: AzureClock,
    metrics: Metrics,
}

/// What a token endpoint answered, and when.
struct Answer<T> {
    body: T,
    sent: Timestamp,
    date: Option<Timestamp>,
}

#[derive(Deserialize)]
struct RefreshReply {
    refresh_token: SecretString,
}

#[derive(Deserialize)]
struct AccessReply {
    access_token: SecretString,
}

/// ACR's error document: `{"errors":[{"code":…,"message":…}]}`.
#[derive(Deserialize)]
struct AcrErrors {
    errors: Vec<AcrError>,
}

#[derive(Deserialize)]
struct AcrError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

// === impl RegistryClient ===

impl RegistryClient {
    /// A client over the shared transport.
    pub fn new(http: reqwest::Client, preconnector: Preconnector, gates: Gates, metrics: Metrics) -> Self {
        Self {
            http,
            preconnector,
            gates,
            clock: AzureClock::new(metrics.clone()),
            metrics,
        }
    }

    /// This registry is about to be asked. Every client of a registry asks this first, and is told where tokens are.
    pub fn open(&self, host: &RegistryHost) {
        self.preconnector.preconnect(host.as_str(), "/v2/");
    }

    /// Exchanges an Entra token for the token that goes into the pull secret.
    pub async fn pull_token(
        &self,
        host: &RegistryHost,
        tenant: Option<&str>,
        scope: Option<&Scope>,
        entra: &EntraToken,
        caller: &Caller,
    ) -> Result<PullToken, Problem> {
        let mut form = vec![
            ("grant_type", "access_token"),
            ("service", host.as_str()),
            ("access_token", entra.expose()),
        ];
        form.extend(tenant.map(|tenant| ("tenant", tenant)));
        let answer: Answer<RefreshReply> = self
            .post(caller, Hop::RegistryExchange, host, "/oauth2/exchange", &form)
            .await?;
        let Some(scope) = scope else {
            return self.token(host, answer, |reply| reply.refresh_token);
        };
        let text = scope.to_string();
        let form = [
            ("grant_type", "refresh_token"),
            ("service", host.as_str()),
            ("scope", &text),
            ("refresh_token", answer.body.refresh_token.expose_secret()),
        ];
        let answer: Answer<AccessReply> = self
            .post(caller, Hop::RegistryToken, host, "/oauth2/token", &form)
            .await?;
        let token = self.token(host, answer, |reply| reply.access_token)?;
        let lacks = lacking(scope, token.secret.expose_secret()).map(|repository| {
            Problem::new(
                Reason::ScopeNotGranted,
                format!(
                    "{host} gave a token that does not open repository {repository}, which spec.scope names; correct the name, \
                     or let the identity pull from that repository"
                ),
            )
        });
        Ok(PullToken { lacks, ..token })
    }

    /// The token replies carry no `expires_in`; the time is in the token itself.
    fn token<T>(
        &self,
        host: &RegistryHost,
        Answer { body, sent, date }: Answer<T>,
        secret: impl FnOnce(T) -> SecretString,
    ) -> Result<PullToken, Problem> {
        let secret = secret(body);
        let expires = expiry(secret.expose_secret()).ok_or_else(|| {
            Problem::new(
                Reason::RegistryUnavailable,
                format!("{host} answered with a token whose expiry cannot be read"),
            )
        })?;
        let expires = self.clock.ours(expires, sent, date);
        Ok(PullToken {
            secret,
            expires,
            lacks: None,
        })
    }

    async fn post<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        hop: Hop,
        host: &RegistryHost,
        path: &str,
        form: &[(&str, &str)],
    ) -> Result<Answer<T>, Problem> {
        let request = self.http.post(format!("https://{host}{path}")).form(form);
        let call = || {
            self.metrics.hop(hop, async move {
                let sent = Timestamp::now();
                let reply = transport::send(request).await.map_err(|cause| {
                    Problem::new(
                        Reason::RegistryUnavailable,
                        format!(
                            "{host}{path} was not reached: {}; if this stays, check spec.registry",
                            Foreign::new(&cause)
                        ),
                    )
                    .unreachable()
                })?;
                if reply.status != StatusCode::OK {
                    return Err(refusal(host, path, &reply));
                }
                // serde's own words could quote the token, so they are not passed on.
                let body = serde_json::from_slice(&reply.body).map_err(|_| {
                    Problem::new(
                        Reason::RegistryUnavailable,
                        format!("{host}{path} answered 200 without a token"),
                    )
                })?;
                Ok(Answer {
                    body,
                    sent,
                    date: reply.date,
                })
            })
        };
        let name = host.as_str();
        self.gates.call(caller, name, name, call).await
    }
}

fn expiry(token: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        /// A number, of which RFC 7519 does not say that it is whole.
        exp: f64,
    }
    let claims = jwt::claims::<Claims>(token)?;
    Timestamp::from_second(claims.exp as i64).ok()
}

/// The first repository of the scope that the token does not open, where the token says what it opens.
fn lacking<'a>(scope: &'a Scope, token: &str) -> Option<&'a str> {
    #[derive(Deserialize)]
    struct Claims {
        access: Vec<Granted>,
    }
    scope.not_granted(&jwt::claims::<Claims>(token)?.access)
}

/// What a reply other than 200 means, and what to do about it.
fn refusal(host: &RegistryHost, path: &str, reply: &Reply) -> Problem {
    let status = reply.status.as_u16();
    let said = serde_json::from_slice::<AcrErrors>(&reply.body)
        .ok()
        .and_then(|e| e.errors.into_iter().next())
        .map(|e| format!(" ({}: {})", Foreign::new(&e.code), Foreign::new(&e.message)))
        .unwrap_or_default();
    let (reason, hint) = match status {
        401 => (
            Reason::RegistryRefused,
            "; grant the identity AcrPull on the registry (Container Registry Repository Reader where it uses ABAC), \
             and check that the registry belongs to the tenant",
        ),
        403 => (
            Reason::RegistryRefused,
            "; the registry's network rules may refuse the webhook's address",
        ),
        404 => (
            Reason::RegistryRefused,
            "; check spec.registry: this host has no such token endpoint",
        ),
        400 | 405..=407 | 410..=428 => (Reason::RegistryRefused, ""),
        429 => (Reason::RegistryThrottled, "; it asks us to slow down"),
        _ => (Reason::RegistryUnavailable, ""),
    };
    Problem::new(reason, format!("{host}{path} answered {status}{said}{hint}")).retry_after(reply.retry_after)
}

/// A reply of a registry's token endpoints, of a status that the first byte chooses.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let permitted = super::DEFAULT_SUFFIXES.parse::<super::RegistrySuffixes>();
    let permitted = permitted
        .ok()
        .and_then(|suffixes| suffixes.permit("contoso.azurecr.io").ok());
    let (Some(host), Some(reply)) = (permitted, Reply::fuzz(data)) else {
        return;
    };
    let problem = refusal(&host, "/oauth2/exchange", &reply);
    assert!(problem.message.len() < 8 * 1024, "a message is bounded");
    let clock = AzureClock::new(Metrics::new());
    if let Ok(reply) = serde_json::from_slice::<RefreshReply>(&reply.body)
        && let Some(expires) = expiry(reply.refresh_token.expose_secret())
    {
        let scope = Scope::parse("repository:team/app:pull");
        drop(scope.map(|scope| lacking(&scope, reply.refresh_token.expose_secret()).map(str::len)));
        for date in [None, Some(Timestamp::MIN), Some(Timestamp::MAX), Some(expires)] {
            clock.ours(expires, Timestamp::UNIX_EPOCH, date);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistrySuffixes;
    use serde_json::json;

    #[test]
    fn the_expiry_is_read_from_the_token_or_not_at_all() {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let token = |json: &str| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(json));
        assert_eq!(
            expiry(&token(r#"{"exp":1700000000,"sub":"x"}"#)),
            Timestamp::from_second(1_700_000_000).ok()
        );
        for bad in ["opaque", &token("{}"), &token(r#"{"exp":"soon"}"#)] {
            assert_eq!(expiry(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_token_that_opens_less_than_its_scope_is_noticed_and_one_that_does_not_say_is_believed() {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let scope =
            Scope::parse("repository:team/app:pull,push repository:team/db:push repository:team/web:pull")
                .unwrap();
        let lacks = |claims: serde_json::Value| {
            let token = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims.to_string()));
            lacking(&scope, &token)
        };
        let access = |entries: &[(&str, &str, &str)]| {
            let entries = entries.iter();
            let entries =
                entries.map(|(kind, name, action)| json!({"type": kind, "name": name, "actions": [action]}));
            json!({"access": entries.collect::<Vec<_>>()})
        };
        let (app, web) = (
            ("repository", "team/app", "pull"),
            ("repository", "team/web", "pull"),
        );
        assert_eq!(lacks(access(&[app, web])), None);
        assert_eq!(lacks(access(&[web])), Some("team/app"));
        assert_eq!(
            lacks(access(&[app, ("repository", "team/web", "push")])),
            Some("team/web")
        );
        assert_eq!(
            lacks(access(&[app, ("registry", "team/web", "pull")])),
            Some("team/web")
        );
        assert_eq!(lacks(access(&[])), Some("team/app"));
        for unknown in [
            json!({}),
            json!({"access": "all"}),
            access(&[("repository", "team/*", "pull")]),
        ] {
            assert_eq!(lacks(unknown.clone()), None, "{unknown}");
        }
    }

    #[test]
    fn a_refusal_is_told_apart_from_an_outage() {
        let host = "azurecr.io"
            .parse::<RegistrySuffixes>()
            .unwrap()
            .permit("contoso.azurecr.io")
            .unwrap();
        let classify = |status: u16, body: &str| {
            refusal(
                &host,
                "/oauth2/token",
                &Reply {
                    status: StatusCode::from_u16(status).unwrap(),
                    retry_after: None,
                    date: None,
                    body: body.into(),
                },
            )
        };
        let denied = classify(
            401,
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#,
        );
        assert_eq!(denied.reason, Reason::RegistryRefused);
        assert!(denied.message.contains("(UNAUTHORIZED: authentication required)"));
        for (status, reason) in [
            (403, Reason::RegistryRefused),
            (404, Reason::RegistryRefused),
            (429, Reason::RegistryThrottled),
            (500, Reason::RegistryUnavailable),
            (503, Reason::RegistryUnavailable),
            (307, Reason::RegistryUnavailable),
            (408, Reason::RegistryUnavailable),
        ] {
            assert_eq!(classify(status, "<html>").reason, reason, "{status}");
        }
    }
}
