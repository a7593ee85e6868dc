//! The logs that tests read: the requests, and every credential that was issued or presented.

use crate::endpoint::Endpoint;
use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

const MAX_REQUESTS: usize = 20_000;
const MAX_CREDENTIALS: usize = 10_000;

/// One request. It never contains a secret.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRecord {
    /// Counts from 1 since the log was cleared. If the first record has a higher number, older ones were dropped.
    pub seq: u64,
    /// The HTTP method.
    pub method: String,
    /// The host of the request.
    pub host: String,
    /// The path without the query.
    pub path: String,
    /// The service that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// The HTTP status of the answer. Absent if the client received none: it left, or a fault withheld the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The application or managed identity that the request or its token names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The `scope` of the form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The `sub` claim of the assertion, verified or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The `aud` claim of the assertion. Several audiences are separated by blanks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
}

/// Every token that was issued, and every assertion, secret and token that was presented. Tests search logs for them.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Credentials {
    /// Tokens that the emulator issued.
    pub issued: Vec<String>,
    /// Assertions, client secrets, passwords and tokens that clients sent.
    pub presented: Vec<String>,
}

impl Credentials {
    /// Texts that occur in a log that contains one of the credentials: the end of each credential, plain and in base64,
    /// where it can begin at one of three offsets.
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

/// The latest requests.
#[derive(Default)]
pub struct RequestLog(Mutex<Records>);

#[derive(Default)]
struct Records {
    records: VecDeque<RequestRecord>,
    last_seq: u64,
}

impl RequestLog {
    pub fn begin(self: &Arc<Self>, record: RequestRecord) -> LogEntry {
        LogEntry {
            record,
            log: self.clone(),
        }
    }

    pub fn records(&self) -> Vec<RequestRecord> {
        self.0.lock().records.iter().cloned().collect()
    }

    pub fn clear(&self) {
        *self.0.lock() = Records::default();
    }

    fn push(&self, mut record: RequestRecord) {
        let mut all = self.0.lock();
        all.last_seq += 1;
        record.seq = all.last_seq;
        if all.records.len() == MAX_REQUESTS {
            all.records.pop_front();
        }
        all.records.push_back(record);
    }
}

/// The record of a request in progress. It enters the log when dropped, so requests that a client gives up are logged,
/// too.
pub struct LogEntry {
    pub record: RequestRecord,
    log: Arc<RequestLog>,
}

impl Drop for LogEntry {
    fn drop(&mut self) {
        self.log.push(std::mem::take(&mut self.record));
    }
}

/// The latest credentials.
#[derive(Default)]
pub struct CredentialLog {
    issued: Mutex<DistinctValues>,
    presented: Mutex<DistinctValues>,
}

impl CredentialLog {
    pub fn add_issued(&self, token: &str) {
        self.issued.lock().add(token);
    }

    pub fn add_presented(&self, credential: &str) {
        self.presented.lock().add(credential);
    }

    pub fn all(&self) -> Credentials {
        Credentials {
            issued: self.issued.lock().order.iter().cloned().collect(),
            presented: self.presented.lock().order.iter().cloned().collect(),
        }
    }
}

#[derive(Default)]
struct DistinctValues {
    order: VecDeque<String>,
    known: HashSet<String>,
}

impl DistinctValues {
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
    fn the_log_is_bounded_and_its_numbers_show_that_records_were_dropped() {
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
    fn a_credential_is_recognised_in_plain_text_and_in_base64() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLXRoaXM";
        let traces = Credentials {
            issued: vec![token.to_owned()],
            presented: Vec::new(),
        }
        .traces();
        for prefix in ["", "a", "ab", "abc"] {
            let text = format!("{prefix}{token}");
            for text in [STANDARD.encode(&text), text] {
                assert!(traces.iter().any(|trace| text.contains(trace)), "{text}");
            }
        }
        let innocent = "an innocent line of a log";
        assert!(!traces.iter().any(|trace| innocent.contains(trace)));
    }

    #[test]
    fn each_credential_is_kept_once() {
        let log = CredentialLog::default();
        for token in ["a", "b", "a", ""] {
            log.add_issued(token);
        }
        assert_eq!(log.all().issued, ["a", "b"]);
    }
}
