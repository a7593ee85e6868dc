//! Reads of one list page or one object, with a bound on their bytes in memory.
//!
//! kube accepts a page of any size, and holds its bytes twice. Users decide how large objects are: 500 objects of 1.5
//! MiB each make a page of 750 MiB.

use crate::kubernetes::{CALL_TIMEOUT, CallError};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::{
    Api, Client, Resource,
    api::{GetParams, ListParams},
    client::Body,
    core::{ObjectList, Request, Status},
};
use serde::de::DeserializeOwned;
use std::{fmt, time::Duration};
use tokio::{sync::Semaphore, time::timeout};

/// The most objects per page.
pub const MAX_PAGE_ITEMS: u32 = 500;
/// The most bytes per page.
const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;
/// The most bytes of an error response.
const MAX_STATUS_BYTES: usize = 64 * 1024;
const PAGE_TIMEOUT: Duration = Duration::from_secs(20);
/// The most bytes of one object that is read by name: the largest object that is decoded, and its unused metadata.
const MAX_OBJECT_BYTES: usize = 512 * 1024;
/// Limits how many objects that were read by name are in memory at the same time.
static OBJECT_PERMITS: Semaphore = Semaphore::const_new(8);
/// Limits how many pages are in memory at the same time, in the whole process.
static PAGE_PERMITS: Semaphore = Semaphore::const_new(2);

/// Why a read from the API server failed.
#[derive(Debug)]
pub enum ReadError {
    /// The API server answered with an error.
    Api(Box<Status>),
    /// The response has more than this number of bytes.
    TooLarge(usize),
    /// There was no valid response.
    Transport(String),
}

impl ReadError {
    /// Converts the error for a caller that does not handle [`ReadError::TooLarge`].
    pub fn into_call_error(self) -> CallError {
        match self {
            Self::Api(status) => CallError::Api(status),
            other => CallError::Transport(other.to_string()),
        }
    }
}

impl From<kube::Error> for ReadError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Api(status),
            error => Self::Transport(error.to_string()),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(status) => write!(f, "{} {}: {}", status.code, status.reason, status.message),
            Self::TooLarge(bytes) => write!(f, "one object has more than {bytes} bytes"),
            Self::Transport(why) => f.write_str(why),
        }
    }
}

/// Reads one page of a list.
pub async fn list_page<K>(
    client: &Client,
    api: &Api<K>,
    params: &ListParams,
) -> Result<ObjectList<K>, ReadError>
where
    K: Resource + Clone + DeserializeOwned,
{
    let request = Request::new(api.resource_url());
    let request = if K::metadata_api() {
        request.list_metadata(params)
    } else {
        request.list(params)
    };
    let request = request.map_err(|error| ReadError::Transport(error.to_string()))?;
    let page = async {
        let _permit = PAGE_PERMITS.acquire().await;
        fetch(client, request.map(Body::from), MAX_PAGE_BYTES).await
    };
    match timeout(PAGE_TIMEOUT, page).await {
        Ok(page) => page,
        Err(_) => Err(ReadError::Transport(format!(
            "no complete response within {PAGE_TIMEOUT:?}"
        ))),
    }
}

/// Reads the object of this name, if it exists. Users decide how large objects are, and how many are read at the same
/// time.
pub async fn get_object<K>(api: &Api<K>, name: &str) -> Result<Option<K>, ReadError>
where
    K: Resource + Clone + DeserializeOwned,
{
    let request = Request::new(api.resource_url());
    let params = GetParams::default();
    let request = if K::metadata_api() {
        request.get_metadata(name, &params)
    } else {
        request.get(name, &params)
    };
    let request = request.map_err(|error| ReadError::Transport(error.to_string()))?;
    let client = api.clone().into_client();
    let object = async {
        let _permit = OBJECT_PERMITS.acquire().await;
        fetch(&client, request.map(Body::from), MAX_OBJECT_BYTES).await
    };
    match timeout(CALL_TIMEOUT, object).await {
        Ok(Err(ReadError::Api(status))) if status.code == 404 => Ok(None),
        Ok(object) => object.map(Some),
        Err(_) => Err(ReadError::Transport(format!("no answer within {CALL_TIMEOUT:?}"))),
    }
}

async fn fetch<T: DeserializeOwned>(
    client: &Client,
    request: http::Request<Body>,
    max_bytes: usize,
) -> Result<T, ReadError> {
    let response = client.send(request).await?;
    let status = response.status();
    let limit = if status.is_success() {
        max_bytes
    } else {
        MAX_STATUS_BYTES
    };
    let body = match Limited::new(response.into_body(), limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() && status.is_success() => {
            return Err(ReadError::TooLarge(limit));
        }
        Err(error) => return Err(ReadError::Transport(error.to_string())),
    };
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| ReadError::Transport(error.to_string()));
    }
    let error = serde_json::from_slice::<Status>(&body);
    Err(ReadError::Api(Box::new(error.unwrap_or_else(|_| {
        Status::failure("the response is not a Status", "Unknown").with_code(status.as_u16())
    }))))
}
