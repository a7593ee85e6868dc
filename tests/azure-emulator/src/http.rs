//! Small helpers over hyper's requests and responses.

use std::fmt::Write as _;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{HeaderMap, Response, StatusCode, header::HeaderValue};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::Value;

/// More than any token request needs; assertions are a few kilobytes.
const MAX_FORM_BYTES: usize = 1024 * 1024;

/// Form fields or query parameters in their order.
#[derive(Default)]
pub(crate) struct Form(Vec<(String, String)>);

/// What an `Authorization` header holds.
pub(crate) enum Authorization {
    Basic { user: String, password: String },
    Bearer(String),
}

/// The value of `Date` (RFC 9110, section 6.6.1) at this second since 1970.
pub(crate) fn date(second: i64) -> Option<HeaderValue> {
    let time = jiff::Timestamp::from_second(second).ok()?;
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    HeaderValue::try_from(printer.timestamp_to_rfc9110_string(&time).ok()?).ok()
}

// === impl Form ===

impl Form {
    pub(crate) fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// Reads a form body; `None` if it is too long or breaks off.
    pub(crate) async fn read(body: hyper::body::Incoming) -> Option<Self> {
        let bytes = Limited::new(body, MAX_FORM_BYTES)
            .collect()
            .await
            .ok()?
            .to_bytes();
        Some(Self::parse(&bytes))
    }

    /// The first value of the field; empty counts as given.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.0.iter().map(|(key, _)| key.clone()).collect()
    }
}

// === impl Authorization ===

impl Authorization {
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        let value = value.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(value.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let pair = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
        let (user, password) = pair.split_once(':')?;
        Some(Self::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    pub(crate) fn secret(&self) -> &str {
        match self {
            Self::Basic { password, .. } => password,
            Self::Bearer(token) => token,
        }
    }
}

pub(crate) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    with_type(status, "application/json; charset=utf-8", value.to_string())
}

pub(crate) fn with_type(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(content_type),
    );
    response
}

/// Random bytes as lower-case hexadecimal.
pub(crate) fn random_hex<const N: usize>() -> String {
    hex(&random::<N>())
}

/// A random UUID.
pub(crate) fn uuid() -> String {
    uuid_of(random())
}

/// The bytes in the form of a version 4 UUID.
pub(crate) fn uuid_of(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// Zeros, should the system have no randomness: the ids made of it tell requests apart, no more.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
