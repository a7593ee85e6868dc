//! ACR's own lists, `/acr/v1/_catalog` and `/acr/v1/{repository}/_tags`, made from what the real registry tells.

use axum::body::Body;
use hyper::header::{ACCEPT, HeaderValue, LINK};
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::route::Listing;
use crate::dispatch::Call;
use crate::http;
use crate::world::Registry;

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

pub(super) async fn answer(call: &Call, registry: &Registry, listing: Listing) -> Response<Body> {
    let made = match listing {
        Listing::Repositories => repositories(call, registry).await,
        Listing::Tags { repository } => tags(call, registry, &repository).await,
    };
    made.unwrap_or_else(|instead| instead)
}

async fn repositories(call: &Call, registry: &Registry) -> Result<Response<Body>, Response<Body>> {
    let path = format!("/v2/_catalog{}", query(call));
    let (headers, list) = call.state.upstream.get_json(registry, &path).await?;
    let mut response = http::json(StatusCode::OK, &json!({"repositories": list["repositories"]}));
    if let Some(link) = own_link(&headers, "/v2/_catalog", "/acr/v1/_catalog") {
        response.headers_mut().insert(LINK, link);
    }
    Ok(response)
}

async fn tags(call: &Call, registry: &Registry, repository: &str) -> Result<Response<Body>, Response<Body>> {
    let path = format!("/v2/{repository}/tags/list");
    let (headers, list) = call
        .state
        .upstream
        .get_json(registry, &format!("{path}{}", query(call)))
        .await?;
    let names = list["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut tags = Vec::new();
    for name in names.iter().filter_map(Value::as_str) {
        tags.push(tag(call, registry, repository, name).await);
    }
    let body = json!({"registry": registry.host, "imageName": repository, "tags": tags});
    let mut response = http::json(StatusCode::OK, &body);
    if let Some(link) = own_link(&headers, &path, &format!("/acr/v1/{repository}/_tags")) {
        response.headers_mut().insert(LINK, link);
    }
    Ok(response)
}

/// The real registry keeps no times: all tags are as old as the epoch.
async fn tag(call: &Call, registry: &Registry, repository: &str, name: &str) -> Value {
    let accept = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(MANIFESTS))]);
    let headers = call
        .state
        .upstream
        .head(registry, &format!("/v2/{repository}/manifests/{name}"), accept)
        .await;
    let digest = headers
        .as_ref()
        .and_then(|headers| headers.get("docker-content-digest")?.to_str().ok());
    json!({
        "name": name,
        "digest": digest,
        "createdTime": "1970-01-01T00:00:00.0000000Z",
        "lastUpdateTime": "1970-01-01T00:00:00.0000000Z",
        "signed": false,
        "changeableAttributes": {"deleteEnabled": true, "writeEnabled": true, "readEnabled": true, "listEnabled": true},
    })
}

/// Paging by `n` and `last` is the same on both sides; whatever else was asked is not the registry's to know.
fn query(call: &Call) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for name in ["n", "last"] {
        if let Some(value) = call.form.get(name) {
            query.append_pair(name, value);
        }
    }
    match query.finish() {
        text if text.is_empty() => text,
        text => format!("?{text}"),
    }
}

/// The `Link` to the next page, under the path that the client knows.
fn own_link(headers: &HeaderMap, theirs: &str, ours: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&headers.get(LINK)?.to_str().ok()?.replace(theirs, ours)).ok()
}
