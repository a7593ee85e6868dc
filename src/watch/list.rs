//! One page of a list, of no more bytes than this program can hold.
//!
//! kube takes a page of any size, and holds its bytes twice. Users decide how large objects are: 500 objects of 1.5 MiB
//! each are a page of 750 MiB.

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

/// The most objects of a page.
pub const MAX_ITEMS: u32 = 500;
/// The most bytes of a page.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The most bytes of an error that an API server answers with.
const MAX_STATUS: usize = 64 * 1024;
/// A page that takes longer is given up.
const PAGE_TIMEOUT: Duration = Duration::from_secs(20);
/// The most bytes of one object that is asked for by its name: one that is decoded, and what is not read of its metadata.
const MAX_OBJECT: usize = 512 * 1024;
/// Such objects that are held at the same time.
static OBJECTS: Semaphore = Semaphore::const_new(8);
/// Pages that are held at the same time, of all lists of this process.
static PAGES: Semaphore = Semaphore::const_new(2);

/// Why a call to an API server failed.
#[derive(Debug)]
pub enum Failure {
    /// The API server answered with an error.
    Api(Box<Status>),
    /// The answer has more than so many bytes.
    TooLarge(usize),
    /// There was no proper answer.
    Transport(String),
}

/// The page that these parameters ask for.
pub async fn page<K>(client: &Client, api: &Api<K>, params: &ListParams) -> Result<ObjectList<K>, Failure>
where
    K: Resource + Clone + DeserializeOwned,
{
    let request = Request::new(api.resource_url());
    let request = match K::metadata_api() {
        true => request.list_metadata(params),
        false => request.list(params),
    };
    let request = request.map_err(|error| Failure::Transport(error.to_string()))?;
    let page = async {
        let _room = PAGES.acquire().await;
        fetch(client, request.map(Body::from), MAX_BYTES).await
    };
    match timeout(PAGE_TIMEOUT, page).await {
        Ok(page) => page,
        Err(_) => Err(Failure::Transport(format!(
            "no whole answer within {PAGE_TIMEOUT:?}"
        ))),
    }
}

/// The object of this name, where there is one. Users decide how large objects are here too, and how many are asked for at
/// the same time.
pub async fn object<K>(api: &Api<K>, name: &str) -> Result<Option<K>, Failure>
where
    K: Resource + Clone + DeserializeOwned,
{
    let (request, params) = (Request::new(api.resource_url()), GetParams::default());
    let request = match K::metadata_api() {
        true => request.get_metadata(name, &params),
        false => request.get(name, &params),
    };
    let request = request.map_err(|error| Failure::Transport(error.to_string()))?;
    let client = api.clone().into_client();
    let object = async {
        let _room = OBJECTS.acquire().await;
        fetch(&client, request.map(Body::from), MAX_OBJECT).await
    };
    match timeout(CALL_TIMEOUT, object).await {
        Ok(Err(Failure::Api(status))) if status.code == 404 => Ok(None),
        Ok(object) => object.map(Some),
        Err(_) => Err(Failure::Transport(format!("no answer within {CALL_TIMEOUT:?}"))),
    }
}

async fn fetch<T: DeserializeOwned>(
    client: &Client,
    request: http::Request<Body>,
    most: usize,
) -> Result<T, Failure> {
    let response = client.send(request).await?;
    let status = response.status();
    let limit = if status.is_success() { most } else { MAX_STATUS };
    let body = match Limited::new(response.into_body(), limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() && status.is_success() => {
            return Err(Failure::TooLarge(limit));
        }
        Err(error) => return Err(Failure::Transport(error.to_string())),
    };
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| Failure::Transport(error.to_string()));
    }
    let answered = serde_json::from_slice::<Status>(&body);
    Err(Failure::Api(Box::new(answered.unwrap_or_else(|_| {
        Status::failure("the answer is not a Status", "Unknown").with_code(status.as_u16())
    }))))
}

// === impl Failure ===

impl Failure {
    /// The same, for a caller who knows no more of it.
    pub fn call_error(self) -> CallError {
        match self {
            Self::Api(status) => CallError::Api(status),
            other => CallError::Transport(other.to_string()),
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Api(status),
            error => Self::Transport(error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(status) => write!(f, "{} {}: {}", status.code, status.reason, status.message),
            Self::TooLarge(bytes) => write!(f, "one object has more than {bytes} bytes"),
            Self::Transport(why) => f.write_str(why),
        }
    }
}
