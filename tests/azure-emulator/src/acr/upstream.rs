//! The real registry behind: requests and replies pass through it unbuffered.

use axum::body::Body;
use http_body_util::{BodyExt as _, Limited};
use hyper::header::{AUTHORIZATION, CONNECTION, EXPECT, HOST, HeaderName, HeaderValue, TE, UPGRADE};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::errors;
use crate::dispatch::Call;
use crate::world::Registry;

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers of one connection, or meant for us.
const NOT_PASSED_ON: [HeaderName; 5] = [AUTHORIZATION, CONNECTION, EXPECT, TE, UPGRADE];

/// Lists of tags and repositories, the only replies that are read whole.
const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;

pub(crate) struct Upstream {
    client: Client<HttpConnector, Body>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }
}

impl Upstream {
    /// Passes the call's request on, with its body. The path is the one that was authorised, the query the client's.
    pub(super) async fn pass(
        &self,
        call: &Call,
        registry: &Registry,
        path: &str,
        body: Body,
    ) -> Response<Body> {
        let path = match call.head.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        self.send(
            registry,
            call.head.method.clone(),
            &path,
            call.head.headers.clone(),
            body,
        )
        .await
        .unwrap_or_else(|error| unreachable(registry, &error))
    }

    /// Gets a JSON document; the error is the reply to give instead.
    pub(super) async fn get_json(
        &self,
        registry: &Registry,
        path: &str,
    ) -> Result<(HeaderMap, Value), Response<Body>> {
        let response = self
            .send(registry, Method::GET, path, HeaderMap::new(), Body::empty())
            .await;
        let response = response.map_err(|error| unreachable(registry, &error))?;
        if response.status() != StatusCode::OK {
            return Err(response);
        }
        let (parts, body) = response.into_parts();
        let bytes = Limited::new(body, MAX_LIST_BYTES)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        let value = bytes
            .map_err(|error| error.to_string())
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
        value
            .map(|value| (parts.headers, value))
            .map_err(|error| unreachable(registry, &error))
    }

    /// Gets the headers of a resource, if it is there.
    pub(super) async fn head(
        &self,
        registry: &Registry,
        path: &str,
        headers: HeaderMap,
    ) -> Option<HeaderMap> {
        let response = self
            .send(registry, Method::HEAD, path, headers, Body::empty())
            .await
            .ok()?;
        (response.status() == StatusCode::OK).then(|| response.into_parts().0.headers)
    }

    async fn send(
        &self,
        registry: &Registry,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Body>, String> {
        let uri: Uri = format!("{}{path}", registry.upstream.trim_end_matches('/'))
            .parse()
            .map_err(|error| format!("{error}"))?;
        let host = HeaderValue::from_str(&registry.host).map_err(|error| error.to_string())?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        for name in NOT_PASSED_ON {
            headers.remove(name);
        }
        // By these the registry makes the Location of an upload; without them it would name its own address.
        headers.insert(HOST, host.clone());
        headers.insert(FORWARDED_HOST, host);
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
        let mut response =
            self.client
                .request(request)
                .await
                .map_err(|error| match std::error::Error::source(&error) {
                    Some(source) => source.to_string(),
                    None => error.to_string(),
                })?;
        response.headers_mut().remove(CONNECTION);
        Ok(response.map(Body::new))
    }
}

fn unreachable(registry: &Registry, error: &str) -> Response<Body> {
    let message = format!(
        "azure-emulator: the registry {} behind {} does not answer: {error}",
        registry.upstream, registry.host
    );
    errors::error(StatusCode::BAD_GATEWAY, "UNAVAILABLE", &message)
}
