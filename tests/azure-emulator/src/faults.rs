//! Faults: which requests fail, how, and how often.

use crate::{
    endpoint::Endpoint,
    world::{self, WorldError},
};
use hyper::{StatusCode, Uri};
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, de::Error};
use std::time::Duration;

pub mod reply;
mod trickle;

/// One fault. The first fault in the list that matches a request and has tries left takes effect.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fault {
    /// The service that fails.
    pub endpoint: Endpoint,
    /// Only requests to this host fail.
    pub host: Option<String>,
    /// Only requests of this application or managed identity fail.
    pub client_id: Option<String>,
    /// How many requests fail; without it, all.
    pub times: Option<u32>,
    /// What happens to the requests.
    pub effect: Effect,
}

impl Fault {
    /// A fault of all requests to this service.
    pub fn new(endpoint: Endpoint, effect: Effect) -> Self {
        Self {
            endpoint,
            host: None,
            client_id: None,
            times: None,
            effect,
        }
    }

    /// Limits the fault to the requests of this application or managed identity.
    pub fn of_client(mut self, client_id: &str) -> Self {
        self.client_id = Some(client_id.to_owned());
        self
    }

    /// Limits the fault to the requests to this host.
    pub fn at_host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Limits the fault to this number of requests.
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    fn matches(&self, endpoint: Endpoint, host: &str, client_id: Option<&str>) -> bool {
        let same = |wanted: &Option<String>, actual: Option<&str>| match wanted {
            Some(wanted) => actual.is_some_and(|actual| actual.eq_ignore_ascii_case(wanted)),
            None => true,
        };
        self.endpoint == endpoint && same(&self.host, Some(host)) && same(&self.client_id, client_id)
    }
}

/// What happens to a request.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(
    deny_unknown_fields,
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Effect {
    /// The correct answer comes this much later.
    Delay(#[serde(deserialize_with = "world::duration")] Duration),
    /// The headers of the correct answer come at once, and its body in small pieces during this time.
    Slow(#[serde(deserialize_with = "world::duration")] Duration),
    /// There is no answer.
    Hang,
    /// The connection ends with a TCP reset.
    Reset,
    /// The answer is an error of the service.
    Status {
        /// The HTTP status.
        #[serde(deserialize_with = "status_code")]
        code: StatusCode,
        /// The seconds in the `Retry-After` header.
        retry_after: Option<u64>,
        /// What makes the service's error document invalid.
        body: Option<InvalidBody>,
    },
    /// The answer is Entra's error with this AADSTS number.
    Aadsts(u32),
    /// The answer is a redirect (307) to this URL.
    Redirect(#[serde(deserialize_with = "uri")] Uri),
    /// The body of the correct answer is invalid.
    Body(InvalidBody),
    /// The correct answer has another `expires_in`.
    ExpiresIn(ExpiresIn),
}

impl Effect {
    /// An error of the service with this status.
    pub fn status(code: StatusCode) -> Self {
        Self::Status {
            code,
            retry_after: None,
            body: None,
        }
    }

    /// An error of the service with this status, and with these seconds in `Retry-After`.
    pub fn retry_after(code: StatusCode, seconds: u64) -> Self {
        Self::Status {
            code,
            retry_after: Some(seconds),
            body: None,
        }
    }
}

/// A body that is not the service's document.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum InvalidBody {
    /// The HTML page of a proxy.
    Html,
    /// No body.
    Empty,
    /// The first half of the document.
    Truncated,
    /// More JSON than any client should read.
    Endless,
    /// An error document with text that attacks the terminal or the shell of its reader.
    Hostile,
}

/// A change of `expires_in`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum ExpiresIn {
    /// The number is a string.
    Quoted,
    /// The field is absent.
    Missing,
}

/// The faults in effect.
#[derive(Default)]
pub struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    pub fn replace(&self, faults: &[Fault]) {
        *self.0.lock() = faults.to_vec();
    }

    /// The effect on this request. Uses up one try of the fault.
    pub fn take(&self, endpoint: Endpoint, host: &str, client_id: Option<&str>) -> Option<Effect> {
        let mut faults = self.0.lock();
        let fault = faults
            .iter_mut()
            .find(|fault| fault.times != Some(0) && fault.matches(endpoint, host, client_id))?;
        fault.times = fault.times.map(|times| times - 1);
        Some(fault.effect.clone())
    }
}

/// Parses a list of faults in YAML or JSON.
pub fn parse(yaml: &str) -> Result<Vec<Fault>, WorldError> {
    world::from_yaml(yaml, "faults")
}

fn status_code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
    StatusCode::from_u16(u16::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn uri<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_takes_effect_as_often_as_requested_and_then_the_next_one() {
        let faults = Faults::default();
        faults.replace(&[
            Fault::new(Endpoint::EntraToken, Effect::Reset).times(2),
            Fault::new(Endpoint::EntraToken, Effect::Hang).times(1),
        ]);
        let take = || faults.take(Endpoint::EntraToken, "h", None);
        assert_eq!(
            [take(), take(), take(), take()],
            [Some(Effect::Reset), Some(Effect::Reset), Some(Effect::Hang), None]
        );
    }

    #[test]
    fn a_fault_affects_only_its_endpoint_host_and_client() {
        let faults = Faults::default();
        faults.replace(&[Fault::new(Endpoint::AcrToken, Effect::Reset)
            .at_host("a.azurecr.io")
            .of_client("X")]);
        let affects = |endpoint, host, client_id| faults.take(endpoint, host, client_id).is_some();
        assert!(affects(Endpoint::AcrToken, "a.azurecr.io", Some("x")));
        assert!(!affects(Endpoint::AcrToken, "b.azurecr.io", Some("x")));
        assert!(!affects(Endpoint::AcrToken, "a.azurecr.io", Some("y")));
        assert!(!affects(Endpoint::AcrToken, "a.azurecr.io", None));
        assert!(!affects(Endpoint::AcrExchange, "a.azurecr.io", Some("x")));
    }

    #[test]
    fn each_effect_is_read_from_yaml() {
        let effects = [
            ("{delay: 50ms}", Effect::Delay(Duration::from_millis(50))),
            ("{slow: 30s}", Effect::Slow(Duration::from_secs(30))),
            ("hang", Effect::Hang),
            ("reset", Effect::Reset),
            (
                "{status: {code: 503}}",
                Effect::status(StatusCode::SERVICE_UNAVAILABLE),
            ),
            (
                "{status: {code: 429, retryAfter: 7, body: html}}",
                Effect::Status {
                    code: StatusCode::TOO_MANY_REQUESTS,
                    retry_after: Some(7),
                    body: Some(InvalidBody::Html),
                },
            ),
            ("{aadsts: 70021}", Effect::Aadsts(70021)),
            (
                "{redirect: 'https://a.example/x'}",
                Effect::Redirect(Uri::from_static("https://a.example/x")),
            ),
            ("{body: truncated}", Effect::Body(InvalidBody::Truncated)),
            ("{expiresIn: quoted}", Effect::ExpiresIn(ExpiresIn::Quoted)),
        ];
        for (yaml, effect) in effects {
            let faults = parse(&format!("[{{endpoint: acr.token, effect: {yaml}}}]"));
            assert_eq!(
                faults.unwrap(),
                [Fault::new(Endpoint::AcrToken, effect)],
                "{yaml}"
            );
        }
        let json = r#"[{"endpoint": "acr.token", "times": 2, "effect": {"delay": "1s"}}]"#;
        let fault = Fault::new(Endpoint::AcrToken, Effect::Delay(Duration::from_secs(1)));
        assert_eq!(parse(json).unwrap(), [fault.times(2)]);
    }

    #[test]
    fn an_invalid_fault_is_refused_with_its_line() {
        for yaml in [
            "{endpoint: acr.token}",
            "{endpoint: acr.tokens, effect: hang}",
            "{endpoint: acr.token, effect: {hang: x, reset: x}}",
            "{endpoint: acr.token, effect: {status: {code: 99}}}",
            "{endpoint: acr.token, effect: {status: {code: 503, retryafter: 1}}}",
            "{endpoint: acr.token, effect: {delay: 5}}",
            "{endpoint: acr.token, effect: {delay: -5s}}",
            "{endpoint: acr.token, effect: hang, time: 2}",
        ] {
            let message = parse(&format!("[{yaml}]")).unwrap_err().to_string();
            assert!(message.starts_with("faults:1:"), "{yaml}: {message}");
        }
    }
}
