//! The real registry: requests and responses are forwarded without buffering.

use super::errors;
use crate::{dispatch::Call, world::Registry};
use axum::body::Body;
use hyper::{
    Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, CONNECTION, EXPECT, HOST, HeaderName, HeaderValue, TE, UPGRADE},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::error::Error;

/// Headers of the client's connection, or for the emulator.
const NOT_FORWARDED: [HeaderName; 5] = [AUTHORIZATION, CONNECTION, EXPECT, TE, UPGRADE];

/// Forwards requests to the registries behind the emulator.
pub struct Upstream {
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
    /// Forwards the request with the authorized path and the client's query.
    pub async fn forward(&self, call: &Call, registry: &Registry, path: &str, body: Body) -> Response<Body> {
        let response = self.send(call, registry, path, body).await;
        response.unwrap_or_else(|error| {
            let (upstream, host) = (&registry.upstream, &registry.host);
            let message =
                format!("azure-emulator: the registry {upstream} behind {host} does not answer: {error}");
            errors::error(StatusCode::BAD_GATEWAY, "UNAVAILABLE", &message)
        })
    }

    async fn send(
        &self,
        call: &Call,
        registry: &Registry,
        path: &str,
        body: Body,
    ) -> Result<Response<Body>, Box<dyn Error + Send + Sync>> {
        let mut uri = format!("{}{path}", registry.upstream.trim_end_matches('/'));
        if let Some(query) = call.head.uri.query() {
            uri.push('?');
            uri.push_str(query);
        }
        let mut request = Request::new(body);
        *request.method_mut() = call.head.method.clone();
        *request.uri_mut() = uri.parse::<Uri>()?;
        *request.headers_mut() = call.head.headers.clone();
        let headers = request.headers_mut();
        for name in NOT_FORWARDED {
            headers.remove(name);
        }
        // The registry puts these into the Location of an upload. Without them it uses its own address.
        headers.insert(HOST, HeaderValue::from_str(&registry.host)?);
        headers.insert("x-forwarded-host", HeaderValue::from_str(&registry.host)?);
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        let mut response = self.client.request(request).await?;
        response.headers_mut().remove(CONNECTION);
        Ok(response.map(Body::new))
    }
}
