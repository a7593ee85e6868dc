//! One page of a list, of no more bytes than this program can hold.
//!
//! kube takes a page of any size, and holds its bytes twice. Users decide how large objects are: 500 objects of 1.5 MiB
//! each are a page of 750 MiB.

use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::{
    Api, Client, Resource,
    api::ListParams,
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
/// Pages that are held at the same time, of all lists of this process.
static PAGES: Semaphore = Semaphore::const_new(2);

/// Why a call to an API server failed.
#[derive(Debug)]
pub enum Failure {
    /// The API server answered with an error.
    Api(Box<Status>),
    /// The page has more than [`MAX_BYTES`].
    TooLarge,
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
        fetch(client, request.map(Body::from)).await
    };
    match timeout(PAGE_TIMEOUT, page).await {
        Ok(page) => page,
        Err(_) => Err(Failure::Transport(format!(
            "no whole answer within {PAGE_TIMEOUT:?}"
        ))),
    }
}

async fn fetch<K>(client: &Client, request: http::Request<Body>) -> Result<ObjectList<K>, Failure>
where
    K: Clone + DeserializeOwned,
{
    let response = client.send(request).await?;
    let status = response.status();
    let limit = if status.is_success() {
        MAX_BYTES
    } else {
        MAX_STATUS
    };
    let body = match Limited::new(response.into_body(), limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() && status.is_success() => return Err(Failure::TooLarge),
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
            Self::TooLarge => write!(f, "one object has more than {MAX_BYTES} bytes"),
            Self::Transport(why) => f.write_str(why),
        }
    }
}
