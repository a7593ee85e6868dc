//! Faults: what goes wrong, where, for whom and how often.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration;
use crate::endpoint::Endpoint;
use crate::log::locked;
use crate::world::{WorldError, from_yaml};

pub(crate) mod reply;
mod trickle;

/// One fault. Of several that fit a request the first with tries left strikes, so a list is also a sequence.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fault {
    /// The service that fails.
    pub endpoint: Endpoint,
    /// Only for requests to this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Only for requests of this application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// How many requests it strikes; without it, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Wait so long first. Alone: the reply is late but right.
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// Never answer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hang: bool,
    /// Never let a connection to the host come about, as where packets are dropped; for whatever service of it. By the proxy
    /// alone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drop: bool,
    /// Reset the TCP connection (RST) instead of answering.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reset: bool,
    /// Send the right reply's headers at once, and its body in small pieces over so long.
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub slow: Option<Duration>,
    /// Answer with this status and the service's own error body; with `aadsts`, with this status instead of that error's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// `Retry-After` of that answer, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// Spoil the body: of the answer with `status`, or else of the right reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<BadBody>,
    /// Answer 307 to this URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<String>,
    /// Name this realm in the challenge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// Answer with this AADSTS error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aadsts: Option<u32>,
    /// Whether that error's description holds escapes (`\r\n`, as is the default) or blanks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escapes: Option<bool>,
    /// Change `expires_in` of the right reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<ExpiresIn>,
    /// Put further numeric fields into the right reply.
    #[serde(default, skip_serializing_if = "is_false")]
    pub extra_numbers: bool,
}

/// How a body is spoilt.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum BadBody {
    /// A proxy's HTML page.
    Html,
    /// JSON that breaks off in the middle.
    Truncated,
    /// No body at all.
    Empty,
    /// More JSON than any client should read.
    Endless,
    /// An error document of the service whose words are meant for the terminal, or the shell, of whoever reads them.
    Hostile,
}

/// How `expires_in` is changed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ExpiresIn {
    /// The number as a string.
    Quoted,
    /// Left out.
    Missing,
}

#[derive(Default)]
pub(crate) struct Faults {
    active: Mutex<Vec<Active>>,
}

struct Active {
    fault: Fault,
    left: Option<u32>,
}

// === impl Fault ===

impl Fault {
    /// A fault of that service which does nothing yet: fill in what goes wrong.
    pub fn on(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            host: None,
            client_id: None,
            times: None,
            delay: None,
            hang: false,
            drop: false,
            reset: false,
            slow: None,
            status: None,
            retry_after: None,
            body: None,
            redirect: None,
            realm: None,
            aadsts: None,
            escapes: None,
            expires_in: None,
            extra_numbers: false,
        }
    }

    /// Reads a list of faults from YAML (or JSON, which is YAML too).
    pub fn parse_list(yaml: &str) -> Result<Vec<Self>, WorldError> {
        let faults: Vec<Self> = from_yaml(yaml, "faults")?;
        check_all(&faults)?;
        Ok(faults)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let answers = [
            ("hang", self.hang),
            ("drop", self.drop),
            ("reset", self.reset),
            ("slow", self.slow.is_some()),
            ("status", self.status.is_some() && self.aadsts.is_none()),
            ("redirect", self.redirect.is_some()),
            ("realm", self.realm.is_some()),
            ("aadsts", self.aadsts.is_some()),
            ("expiresIn", self.expires_in.is_some()),
            ("extraNumbers", self.extra_numbers),
        ];
        let given: Vec<&str> = answers
            .iter()
            .filter(|(_, given)| *given)
            .map(|(name, _)| *name)
            .collect();
        if given.len() > 1 {
            return Err(format!("{} exclude one another", given.join(" and ")));
        }
        if given.is_empty() && self.delay.is_none() && self.body.is_none() {
            return Err("says nothing of what goes wrong: give delay, hang, drop, reset, slow, status, body, redirect, realm, aadsts, expiresIn or extraNumbers".to_owned());
        }
        if self.drop && (self.host.is_none() || self.client_id.is_some() || self.times.is_some()) {
            return Err("drop: needs host, and goes with no clientId or times".to_owned());
        }
        if self.slow.is_some_and(|time| time.is_zero()) {
            return Err("slow: give the time that the body takes, more than none".to_owned());
        }
        if self.status.is_some_and(|status| !(200..=599).contains(&status)) {
            return Err("status: not a final HTTP status (200 to 599)".to_owned());
        }
        if self.retry_after.is_some() && self.status.is_none() && self.aadsts.is_none() {
            return Err("retryAfter: goes with status or aadsts".to_owned());
        }
        if self.body.is_some() && given.first().is_some_and(|name| *name != "status") {
            return Err(format!("body: does not go with {}", given[0]));
        }
        if self.realm.is_some() && self.endpoint != Endpoint::AcrChallenge {
            return Err("realm: only acr.challenge names one".to_owned());
        }
        // IMDS hands on Entra's errors as they are.
        if self.aadsts.is_some() && !self.endpoint.is_entra() && self.endpoint != Endpoint::ImdsToken {
            return Err("aadsts: only Entra's endpoints and imds.token answer so".to_owned());
        }
        if self.expires_in.is_some() && !self.endpoint.is_entra() {
            return Err("expiresIn: only Entra's endpoints answer so".to_owned());
        }
        if self.escapes.is_some() && self.aadsts.is_none() {
            return Err("escapes: goes with aadsts".to_owned());
        }
        Ok(())
    }

    fn fits(&self, endpoint: Endpoint, host: &str, client_id: Option<&str>) -> bool {
        let same = |wanted: &Option<String>, have: Option<&str>| {
            wanted
                .as_deref()
                .is_none_or(|wanted| have.is_some_and(|have| have.eq_ignore_ascii_case(wanted)))
        };
        !self.drop
            && self.endpoint == endpoint
            && same(&self.host, Some(host))
            && same(&self.client_id, client_id)
    }
}

impl fmt::Display for Fault {
    /// In a few words, for the request log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        for (word, time) in [("delay", self.delay), ("slow", self.slow)] {
            words.extend(time.map(|time| format!("{word} {}ms", time.as_millis())));
        }
        let flags = [
            (self.hang, "hang"),
            (self.drop, "drop"),
            (self.reset, "reset"),
            (self.extra_numbers, "extra numbers"),
        ];
        words.extend(
            flags
                .iter()
                .filter(|(set, _)| *set)
                .map(|(_, word)| (*word).to_owned()),
        );
        let named = [
            self.status.map(|status| format!("status {status}")),
            self.body.map(|body| format!("body {body:?}").to_lowercase()),
            self.redirect.as_ref().map(|_| "redirect".to_owned()),
            self.realm.as_ref().map(|_| "realm".to_owned()),
            self.aadsts.map(|code| format!("aadsts {code}")),
            self.expires_in
                .map(|how| format!("expires_in {how:?}").to_lowercase()),
        ];
        words.extend(named.into_iter().flatten());
        f.write_str(&words.join(", "))
    }
}

/// Checks each; the error names the first bad one by its place.
pub(crate) fn check_all(faults: &[Fault]) -> Result<(), WorldError> {
    for (i, fault) in faults.iter().enumerate() {
        fault
            .check()
            .map_err(|problem| WorldError(format!("faults[{i}]: {problem}")))?;
    }
    Ok(())
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

// === impl Faults ===

impl Faults {
    pub(crate) fn replace(&self, faults: &[Fault]) {
        let active = faults.iter().map(|fault| Active {
            fault: fault.clone(),
            left: fault.times,
        });
        *locked(&self.active) = active.collect();
    }

    /// Whether no connection to this host comes about.
    pub(crate) fn drops(&self, host: &str) -> bool {
        let named = |one: &Active| {
            one.fault
                .host
                .as_deref()
                .is_some_and(|h| h.eq_ignore_ascii_case(host))
        };
        locked(&self.active)
            .iter()
            .any(|one| one.fault.drop && named(one))
    }

    /// The fault that strikes this request, one try of it used up.
    pub(crate) fn strike(&self, endpoint: Endpoint, host: &str, client_id: Option<&str>) -> Option<Fault> {
        let mut active = locked(&self.active);
        let hit = active
            .iter_mut()
            .find(|one| one.left != Some(0) && one.fault.fits(endpoint, host, client_id))?;
        hit.left = hit.left.map(|left| left - 1);
        Some(hit.fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(yaml: &str) -> Vec<Fault> {
        Fault::parse_list(yaml).unwrap()
    }

    #[test]
    fn a_fault_strikes_as_often_as_asked_and_then_the_next_in_the_list() {
        let faults = Faults::default();
        faults.replace(&list(
            "[{endpoint: entra.token, status: 503, times: 2}, {endpoint: entra.token, hang: true, times: 1}]",
        ));
        let strike = || {
            faults
                .strike(Endpoint::EntraToken, "h", None)
                .map(|fault| fault.to_string())
        };
        assert_eq!(
            [strike(), strike(), strike(), strike()].map(Option::unwrap_or_default),
            ["status 503", "status 503", "hang", ""]
        );
    }

    #[test]
    fn a_fault_strikes_only_the_endpoint_host_and_client_it_names() {
        let faults = Faults::default();
        faults.replace(&list(
            "[{endpoint: acr.token, host: a.azurecr.io, clientId: X, reset: true}]",
        ));
        assert!(
            faults
                .strike(Endpoint::AcrToken, "b.azurecr.io", Some("x"))
                .is_none()
        );
        assert!(
            faults
                .strike(Endpoint::AcrToken, "a.azurecr.io", Some("y"))
                .is_none()
        );
        assert!(faults.strike(Endpoint::AcrToken, "a.azurecr.io", None).is_none());
        assert!(
            faults
                .strike(Endpoint::AcrExchange, "a.azurecr.io", Some("x"))
                .is_none()
        );
        assert!(
            faults
                .strike(Endpoint::AcrToken, "a.azurecr.io", Some("x"))
                .is_some()
        );
    }

    #[test]
    fn contradictions_are_refused_with_their_place() {
        for (yaml, part) in [
            ("{endpoint: entra.token}", "says nothing"),
            (
                "{endpoint: entra.token, hang: true, reset: true}",
                "hang and reset exclude",
            ),
            ("{endpoint: entra.token, slow: 0s}", "slow: give the time"),
            (
                "{endpoint: entra.token, slow: 30s, status: 503}",
                "slow and status exclude",
            ),
            (
                "{endpoint: entra.token, slow: 30s, body: html}",
                "body: does not go with slow",
            ),
            ("{endpoint: entra.token, realm: x}", "realm: only acr.challenge"),
            ("{endpoint: acr.token, aadsts: 70021}", "aadsts: only Entra"),
            (
                "{endpoint: imds.token, expiresIn: quoted}",
                "expiresIn: only Entra",
            ),
            (
                "{endpoint: appservice.token, aadsts: 70021}",
                "aadsts: only Entra",
            ),
            (
                "{endpoint: acr.token, retryAfter: 5, hang: true}",
                "retryAfter: goes with",
            ),
            (
                "{endpoint: acr.token, body: html, hang: true}",
                "body: does not go with hang",
            ),
            ("{endpoint: acr.token, status: 99}", "status: not a final"),
            ("{endpoint: acr.tokens, status: 500}", "acr.tokens"),
            ("{endpoint: acr.token, delay: 5}", "not a duration"),
        ] {
            let message = Fault::parse_list(&format!("[{yaml}]")).unwrap_err().to_string();
            assert!(
                message.starts_with("faults") && message.contains(part),
                "{yaml}: {message}"
            );
        }
    }

    #[test]
    fn json_is_accepted_as_well() {
        let fault =
            list(r#"[{"endpoint":"acr.exchange","delay":"50ms","status":429,"retryAfter":7}]"#).remove(0);
        assert_eq!(
            (fault.delay, fault.retry_after),
            (Some(Duration::from_millis(50)), Some(7))
        );
        let again = serde_json::to_string(&[&fault]).unwrap();
        assert_eq!(list(&again)[0], fault);
    }
}
