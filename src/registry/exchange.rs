//! ACR's token exchange: Entra token → refresh token (3 h) → access token (75 min, with a scope).
//! Source: <https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md>.

use super::{RegistryHost, Scope, clock::AzureClock, refusal::error_problem, scope::GrantedAccess};
use crate::{
    identity::EntraToken,
    jwt,
    problem::{Problem, Reason},
    telemetry::{Metrics, UpstreamCall},
    transport::{self, Caller, Gates, Preconnector},
};
use jiff::Timestamp;
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};

/// The token of a pull secret, with its expiry.
#[derive(Debug)]
pub struct PullToken {
    /// The token.
    pub secret: SecretString,
    /// The token's `exp` claim, converted to this machine's clock.
    pub expires: Timestamp,
    /// Set if the token's `access` claim does not grant all of the requested scope.
    pub scope_problem: Option<Problem>,
}

impl PullToken {
    /// The same token, whose scope's problem has the command that corrects the scope.
    pub fn scope_corrected_by(mut self, command: impl FnOnce() -> String) -> Self {
        self.scope_problem = self.scope_problem.map(|problem| problem.command(command()));
        self
    }
}

/// Calls the token endpoints of registries.
#[derive(Clone)]
pub struct RegistryClient {
    http: reqwest::Client,
    preconnector: Preconnector,
    gates: Gates,
    clock: AzureClock,
    metrics: Metrics,
}

impl RegistryClient {
    /// A client that sends its requests with `http`.
    pub fn new(http: reqwest::Client, preconnector: Preconnector, gates: Gates, metrics: Metrics) -> Self {
        Self {
            http,
            preconnector,
            gates,
            clock: AzureClock::new(metrics.clone()),
            metrics,
        }
    }

    /// Opens a connection to the registry, which will be called soon. Every client of a registry requests `/v2/` first,
    /// because the response contains the address of the token endpoint.
    pub fn preconnect(&self, host: &RegistryHost) {
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
        let response: TokenResponse<RefreshTokenBody> =
            self.post(caller, &EXCHANGE, host, entra, &form).await?;
        let Some(scope) = scope else {
            return self.token(host, response, |body| body.refresh_token);
        };
        let text = scope.to_string();
        let form = [
            ("grant_type", "refresh_token"),
            ("service", host.as_str()),
            ("scope", &text),
            ("refresh_token", response.body.refresh_token.expose_secret()),
        ];
        let response: TokenResponse<AccessTokenBody> = self.post(caller, &TOKEN, host, entra, &form).await?;
        let token = self.token(host, response, |body| body.access_token)?;
        let scope_problem = repository_not_granted(scope, token.secret.expose_secret()).map(|repository| {
            Problem::new(
                Reason::ScopeNotGranted,
                format!(
                    "the token of {host} cannot pull from repository {repository} of spec.scope: correct the name, or grant \
                     the identity access to it"
                ),
            )
        });
        Ok(PullToken {
            scope_problem,
            ..token
        })
    }

    /// Reads the expiry from the token itself, because the responses of the token endpoints have no `expires_in`.
    fn token<T>(
        &self,
        host: &RegistryHost,
        TokenResponse { body, sent, date }: TokenResponse<T>,
        secret: impl FnOnce(T) -> SecretString,
    ) -> Result<PullToken, Problem> {
        let secret = secret(body);
        let expires = expiry(secret.expose_secret()).ok_or_else(|| {
            Problem::new(
                Reason::RegistryUnavailable,
                format!("{host} issued a token whose expiry cannot be read"),
            )
        })?;
        let expires = self.clock.local_expiry(expires, sent, date);
        Ok(PullToken {
            secret,
            expires,
            scope_problem: None,
        })
    }

    async fn post<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        hop: &Hop,
        host: &RegistryHost,
        entra: &EntraToken,
        form: &[(&str, &str)],
    ) -> Result<TokenResponse<T>, Problem> {
        let path = hop.path;
        let request = self.http.post(format!("https://{host}{path}")).form(form);
        let call = || {
            self.metrics.upstream_call(hop.call, async move {
                let sent = Timestamp::now();
                let reply = transport::send(request).await;
                let reply = reply.map_err(|error| error.of_registry(hop.name, host.as_str()))?;
                if reply.status != StatusCode::OK {
                    return Err(error_problem(host, path, &reply, entra.client_id()));
                }
                // serde's error could quote the token, so it is discarded.
                let body = serde_json::from_slice(&reply.body).map_err(|_| {
                    Problem::new(
                        Reason::RegistryUnavailable,
                        format!("{host}{path} returned HTTP 200 without a token"),
                    )
                })?;
                Ok(TokenResponse {
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

/// One of the two calls to a registry.
struct Hop {
    /// The call in metrics.
    call: UpstreamCall,
    /// What is requested, in messages.
    name: &'static str,
    path: &'static str,
}

const EXCHANGE: Hop = Hop {
    call: UpstreamCall::RegistryExchange,
    name: "the token exchange",
    path: "/oauth2/exchange",
};

const TOKEN: Hop = Hop {
    call: UpstreamCall::RegistryToken,
    name: "the registry token",
    path: "/oauth2/token",
};

/// A successful response of a token endpoint.
struct TokenResponse<T> {
    body: T,
    /// When the request was sent, by this machine's clock.
    sent: Timestamp,
    /// The `Date` header of the response.
    date: Option<Timestamp>,
}

#[derive(Deserialize)]
struct RefreshTokenBody {
    refresh_token: SecretString,
}

#[derive(Deserialize)]
struct AccessTokenBody {
    access_token: SecretString,
}

fn expiry(token: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        /// RFC 7519 permits a fraction.
        exp: f64,
    }
    let claims = jwt::unverified_claims::<Claims>(token)?;
    Timestamp::from_second(claims.exp as i64).ok()
}

/// The first repository of the scope that the token cannot pull from. `None` if the token has no readable `access`
/// claim.
fn repository_not_granted<'a>(scope: &'a Scope, token: &str) -> Option<&'a str> {
    #[derive(Deserialize)]
    struct Claims {
        access: Vec<GrantedAccess>,
    }
    scope.first_not_granted(&jwt::unverified_claims::<Claims>(token)?.access)
}

/// Parses `data` as a response of a registry's token endpoint. The first byte selects the HTTP status.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let permitted = super::DEFAULT_SUFFIXES.parse::<super::RegistrySuffixes>();
    let permitted = permitted
        .ok()
        .and_then(|suffixes| suffixes.permit("contoso.azurecr.io").ok());
    let (Some(host), Some(reply)) = (permitted, transport::Reply::fuzz(data)) else {
        return;
    };
    let problem = error_problem(&host, "/oauth2/exchange", &reply, None);
    assert!(
        problem.to_string().len() <= crate::problem::MAX_SENTENCE_BYTES,
        "a message is bounded"
    );
    let clock = AzureClock::new(Metrics::new());
    if let Ok(body) = serde_json::from_slice::<RefreshTokenBody>(&reply.body)
        && let Some(expires) = expiry(body.refresh_token.expose_secret())
    {
        let scope = Scope::parse("repository:team/app:pull");
        drop(
            scope.map(|scope| {
                repository_not_granted(&scope, body.refresh_token.expose_secret()).map(str::len)
            }),
        );
        for date in [None, Some(Timestamp::MIN), Some(Timestamp::MAX), Some(expires)] {
            clock.local_expiry(expires, Timestamp::UNIX_EPOCH, date);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_numeric_exp_claim_is_read_as_expiry() {
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
    fn a_repository_missing_in_a_readable_access_claim_is_reported() {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let scope =
            Scope::parse("repository:team/app:pull,push repository:team/db:push repository:team/web:pull")
                .unwrap();
        let not_granted = |claims: serde_json::Value| {
            let token = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims.to_string()));
            repository_not_granted(&scope, &token)
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
        assert_eq!(not_granted(access(&[app, web])), None);
        assert_eq!(not_granted(access(&[web])), Some("team/app"));
        assert_eq!(
            not_granted(access(&[app, ("repository", "team/web", "push")])),
            Some("team/web")
        );
        assert_eq!(
            not_granted(access(&[app, ("registry", "team/web", "pull")])),
            Some("team/web")
        );
        assert_eq!(not_granted(access(&[])), Some("team/app"));
        for unknown in [
            json!({}),
            json!({"access": "all"}),
            access(&[("repository", "team/*", "pull")]),
        ] {
            assert_eq!(not_granted(unknown.clone()), None, "{unknown}");
        }
    }
}
