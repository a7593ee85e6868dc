//! What can be read back: the requests that came, and every credential that was issued or presented.

use std::collections::{HashSet, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;

const MAX_REQUESTS: usize = 20_000;
const MAX_CREDENTIALS: usize = 10_000;

/// One request, as the log tells it. It never holds a secret: of forms and queries only the keys are kept.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRecord {
    /// Counts from 1 since the log was last cleared; the first being higher says that older ones were dropped.
    pub seq: u64,
    /// When the request came (RFC 3339, the machine's clock).
    pub time: String,
    /// HTTP method.
    pub method: String,
    /// Host that was asked.
    pub host: String,
    /// Path without the query.
    pub path: String,
    /// Which of the emulated services answered, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Names of the form fields, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub form_keys: Vec<String>,
    /// Names of the query parameters, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query_keys: Vec<String>,
    /// HTTP status of the reply; absent where the client got none (it left, or a fault withheld it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How long the reply took, in milliseconds.
    pub duration_ms: u64,
    /// Tenant named in the path (Entra) or in the form (ACR), or that of the managed identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Application that asks, as the request or its token says; of a managed identity that is not named by it, its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// `grant_type` of the form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant_type: Option<String>,
    /// Scopes that were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Resource for which a managed identity's token is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Azure resource id by which a managed identity is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    /// Object id by which a managed identity is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_id: Option<String>,
    /// `sub` of the presented assertion, verified or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `iss` of the presented assertion, verified or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// `aud` of the presented assertion, several separated by blanks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Number of the AADSTS error that was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aadsts: Option<u32>,
    /// The fault that struck, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// Every token issued, and every assertion, secret and token presented: to search other programs' logs for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Credentials {
    /// Tokens made here.
    pub issued: Vec<String>,
    /// Assertions, client secrets, passwords and tokens that clients sent.
    pub presented: Vec<String>,
}

#[derive(Default)]
pub(crate) struct RequestLog {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    records: VecDeque<RequestRecord>,
    last_seq: u64,
}

/// A record being made. It enters the log when dropped: also requests that a client gave up are told of.
pub(crate) struct Entry {
    record: RequestRecord,
    started: Instant,
    log: Arc<RequestLog>,
}

#[derive(Default)]
pub(crate) struct CredentialLog {
    issued: Mutex<Distinct>,
    presented: Mutex<Distinct>,
}

/// The latest distinct values.
#[derive(Default)]
struct Distinct {
    order: VecDeque<String>,
    known: HashSet<String>,
}

/// Locks; what a panicking thread left behind is still a whole value, for nothing here panics halfway.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Credentials ===

impl Credentials {
    /// What the credentials can be recognised by in somebody's log: the end of each, plain and in
    /// base64, where it may begin at any of three places.
    pub fn traces(&self) -> Vec<String> {
        let all = self.issued.iter().chain(&self.presented);
        all.flat_map(|credential| {
            let tail = &credential[credential.len().saturating_sub(24)..];
            let encoded =
                (0..3).filter_map(|skip| Some(STANDARD.encode(tail.get(skip..)?).get(4..24)?.to_owned()));
            encoded.chain([tail.to_owned()]).collect::<Vec<_>>()
        })
        .collect()
    }
}

// === impl RequestLog ===

impl RequestLog {
    pub(crate) fn begin(self: &Arc<Self>, record: RequestRecord) -> Entry {
        let time = jiff::Timestamp::now().to_string();
        Entry {
            record: RequestRecord { time, ..record },
            started: Instant::now(),
            log: Arc::clone(self),
        }
    }

    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        locked(&self.kept).records.iter().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        *locked(&self.kept) = Kept::default();
    }

    fn push(&self, mut record: RequestRecord) {
        let mut kept = locked(&self.kept);
        kept.last_seq += 1;
        record.seq = kept.last_seq;
        if kept.records.len() == MAX_REQUESTS {
            kept.records.pop_front();
        }
        kept.records.push_back(record);
    }
}

// === impl Entry ===

impl Deref for Entry {
    type Target = RequestRecord;

    fn deref(&self) -> &RequestRecord {
        &self.record
    }
}

impl DerefMut for Entry {
    fn deref_mut(&mut self) -> &mut RequestRecord {
        &mut self.record
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut record = std::mem::take(&mut self.record);
        record.duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.log.push(record);
    }
}

// === impl CredentialLog ===

impl CredentialLog {
    pub(crate) fn issued(&self, token: &str) {
        locked(&self.issued).add(token);
    }

    pub(crate) fn presented(&self, credential: &str) {
        locked(&self.presented).add(credential);
    }

    pub(crate) fn all(&self) -> Credentials {
        let list = |side: &Mutex<Distinct>| locked(side).order.iter().cloned().collect();
        Credentials {
            issued: list(&self.issued),
            presented: list(&self.presented),
        }
    }
}

impl Distinct {
    fn add(&mut self, value: &str) {
        if value.is_empty() || !self.known.insert(value.to_owned()) {
            return;
        }
        if self.order.len() == MAX_CREDENTIALS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_and_its_numbers_show_what_was_dropped() {
        let log = Arc::new(RequestLog::default());
        for _ in 0..MAX_REQUESTS + 2 {
            drop(log.begin(RequestRecord::default()));
        }
        assert_eq!(log.records().len(), MAX_REQUESTS);
        assert_eq!(log.records()[0].seq, 3);
        log.clear();
        drop(log.begin(RequestRecord::default()));
        assert_eq!(log.records()[0].seq, 1);
    }

    #[test]
    fn a_credential_is_recognised_plain_and_wherever_it_stands_in_base64() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLXRoaXM";
        let traces = Credentials {
            issued: vec![token.to_owned()],
            presented: Vec::new(),
        }
        .traces();
        for before in ["", "a", "ab", "abc"] {
            for text in [
                format!("{before}{token}"),
                STANDARD.encode(format!("{before}{token}")),
            ] {
                assert!(traces.iter().any(|trace| text.contains(trace.as_str())), "{text}");
            }
        }
        assert!(
            traces
                .iter()
                .all(|trace| !"an innocent line of a log".contains(trace.as_str()))
        );
    }

    #[test]
    fn credentials_are_kept_once_each() {
        let log = CredentialLog::default();
        for token in ["a", "b", "a", ""] {
            log.issued(token);
        }
        assert_eq!(log.all().issued, ["a", "b"]);
    }
}
