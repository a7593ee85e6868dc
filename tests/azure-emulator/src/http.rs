//! Helpers for hyper's requests and responses.

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt, Limited};
use hyper::{
    HeaderMap, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};
use serde_json::Value;

/// Token requests are smaller: an assertion has a few kilobytes.
const MAX_FORM_BYTES: usize = 1024 * 1024;

/// Form fields or query parameters, in their order.
#[derive(Default)]
pub struct Form(Vec<(String, String)>);

impl Form {
    pub fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// Reads a form body. `None` if the body is too long or incomplete.
    pub async fn read(body: Incoming) -> Option<Self> {
        let body = Limited::new(body, MAX_FORM_BYTES).collect().await.ok()?;
        Some(Self::parse(&body.to_bytes()))
    }

    /// The first value of the field that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let fields = self.0.iter().filter(move |(key, _)| key == name);
        fields.map(|(_, value)| value.as_str())
    }
}

/// The content of an `Authorization` header.
pub enum Authorization {
    Basic { user: String, password: String },
    Bearer(String),
}

impl Authorization {
    pub fn of(headers: &HeaderMap) -> Option<Self> {
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

    pub fn secret(&self) -> &str {
        match self {
            Self::Basic { password, .. } => password,
            Self::Bearer(token) => token,
        }
    }
}

pub fn json(status: StatusCode, value: &Value) -> Response<Body> {
    with_content_type(status, "application/json; charset=utf-8", value.to_string())
}

pub fn text(status: StatusCode, text: impl Into<Body>) -> Response<Body> {
    with_content_type(status, "text/plain; charset=utf-8", text)
}

fn with_content_type(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The value of the `Date` header (RFC 9110, section 6.6.1) for this second since 1970.
pub fn date(second: i64) -> Option<HeaderValue> {
    let time = Timestamp::from_second(second).ok()?;
    let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()?;
    HeaderValue::try_from(text).ok()
}
