//! Reads of the API server with the caller's permissions. Objects are read as JSON: a check looks at single fields of
//! many kinds, and must not fail because of a field that it does not know.

use super::{reason::Reason, report::Finding};
use crate::{
    kubernetes::{self, CallError},
    untrusted::UntrustedText,
};
use kube::{Client, core::Status};
use serde_json::Value;

/// The API server, called with the caller's permissions.
#[derive(Clone)]
pub struct ApiServer {
    /// The client.
    pub client: Client,
}

/// Why an object could not be read.
#[derive(Clone, Debug)]
pub enum Unread {
    /// The object, or its kind, does not exist.
    NotFound,
    /// The caller may not read it.
    Forbidden(String),
    /// There was no answer, or no useful one.
    Unreachable(String),
}

impl Unread {
    /// The finding of a check that needs the object. `what` is the object.
    pub fn finding(&self, check: &str, what: &str) -> Finding {
        match self {
            Unread::NotFound => {
                Finding::unknown(check, Reason::ObjectNotFound, format!("{what} does not exist"))
            }
            Unread::Forbidden(message) => Finding::unknown(
                check,
                Reason::NotPermitted,
                format!("you may not read {what}: {}", UntrustedText::new(message)),
            ),
            Unread::Unreachable(cause) => Finding::unknown(
                check,
                Reason::ApiServerUnreachable,
                format!("{what} could not be read: {}", UntrustedText::new(cause)),
            ),
        }
    }
}

impl From<CallError> for Unread {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Api(status) if status.code == 404 => Self::NotFound,
            CallError::Api(status) if matches!(status.code, 401 | 403) => Self::Forbidden(status.message),
            error => Self::Unreachable(error.to_string()),
        }
    }
}

impl ApiServer {
    /// The object or list at this path.
    pub async fn get(&self, path: &str) -> Result<Value, Unread> {
        let request = http::Request::get(path).body(Vec::new());
        Ok(self.send(path, request).await?)
    }

    /// The items of the list at this path.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, Unread> {
        let mut list = self.get(path).await?;
        Ok(match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        })
    }

    /// The text at this path, such as metrics.
    pub async fn text(&self, path: &str) -> Result<String, Unread> {
        let call = async {
            let request = http::Request::get(path).body(Vec::new());
            let request = request.map_err(kube::Error::HttpError)?;
            self.client.request_text(request).await
        };
        Ok(kubernetes::try_call(path, call).await?)
    }

    /// Creates an object, such as a review of permissions.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, CallError> {
        let request = http::Request::post(path)
            .header("Content-Type", "application/json")
            .body(body.to_string().into_bytes());
        self.send(path, request).await
    }

    async fn send(
        &self,
        what: &str,
        request: Result<http::Request<Vec<u8>>, http::Error>,
    ) -> Result<Value, CallError> {
        let call = async {
            let request = request.map_err(kube::Error::HttpError)?;
            kubernetes::send_and_decode(&self.client, request).await
        };
        kubernetes::try_call(what, call).await
    }
}

/// The text at this JSON pointer; empty if there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The items at this JSON pointer.
pub fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The name of an object.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// The value of a label or an annotation, whose keys contain a slash.
pub fn metadata_entry<'a>(object: &'a Value, field: &str, key: &str) -> Option<&'a str> {
    object["metadata"][field][key].as_str()
}

/// Whether a refusal comes from the caller's own permissions, and not from an admission webhook or policy.
pub fn is_authorization(status: &Status) -> bool {
    status.code == 401 || status.code == 403 && status.message.contains(" cannot ")
}
