//! Reads of one list page or one object, with a bound on their bytes in memory.
//!
//! kube accepts a page of any size, and holds its bytes twice. Users decide how large objects are: 500 objects of 1.5
//! MiB each make a page of 750 MiB.

use crate::kubernetes::{CALL_TIMEOUT, CallError, is_kind_missing};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::{
    Api, Client, Resource,
    api::{GetParams, ListParams},
    client::Body,
    core::{ObjectList, Request, Status},
};
use serde::de::DeserializeOwned;
use std::time::Duration;
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

/// Reads one page of a list.
pub async fn list_page<K>(
    client: &Client,
    api: &Api<K>,
    params: &ListParams,
) -> Result<ObjectList<K>, CallError>
where
    K: Resource + Clone + DeserializeOwned,
{
    let request = Request::new(api.resource_url());
    let request = if K::metadata_api() {
        request.list_metadata(params)
    } else {
        request.list(params)
    };
    let request = request.map_err(|error| CallError::Transport(error.to_string()))?;
    let page = async {
        let _permit = PAGE_PERMITS.acquire().await;
        fetch(client, request.map(Body::from), MAX_PAGE_BYTES).await
    };
    match timeout(PAGE_TIMEOUT, page).await {
        Ok(page) => page,
        Err(_) => Err(CallError::Transport(format!(
            "no complete response within {PAGE_TIMEOUT:?}"
        ))),
    }
}

/// Reads the object of this name, if it exists. An error of the status 404 means that the kind is not installed. Users
/// decide how large objects are, and how many are read at the same time.
pub async fn get_object<K>(api: &Api<K>, name: &str) -> Result<Option<K>, CallError>
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
    let request = request.map_err(|error| CallError::Transport(error.to_string()))?;
    let client = api.clone().into_client();
    let object = async {
        let _permit = OBJECT_PERMITS.acquire().await;
        fetch(&client, request.map(Body::from), MAX_OBJECT_BYTES).await
    };
    match timeout(CALL_TIMEOUT, object).await {
        Ok(Err(CallError::Api(status))) if status.code == 404 && !is_kind_missing(&status) => Ok(None),
        Ok(object) => object.map(Some),
        Err(_) => Err(CallError::Transport(format!(
            "no response within {CALL_TIMEOUT:?}"
        ))),
    }
}

async fn fetch<T: DeserializeOwned>(
    client: &Client,
    request: http::Request<Body>,
    max_bytes: usize,
) -> Result<T, CallError> {
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
            return Err(CallError::TooLarge(limit));
        }
        Err(error) => return Err(CallError::Transport(error.to_string())),
    };
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| CallError::Transport(error.to_string()));
    }
    let error = serde_json::from_slice::<Status>(&body);
    Err(CallError::Api(Box::new(error.unwrap_or_else(|_| {
        Status::failure("the response is not a Status", "Unknown").with_code(status.as_u16())
    }))))
}
