//! The Instance Metadata Service's token endpoint, on machines at `http://169.254.169.254`.

use axum::body::Body;
use hyper::header::{HeaderValue, SERVER};
use hyper::{Response, StatusCode};
use serde_json::json;

use super::selection::{self, NotFound, Selector};
use super::{errors, given, header};
use crate::cloud;
use crate::dispatch::Call;
use crate::endpoint::Endpoint;
use crate::entra::errors::{EntraError, Frame};
use crate::world::World;

/// The first version that knows tokens; versions are dates, so later ones compare as greater.
const OLDEST_VERSION: &str = "2018-02-01";

/// Why there is no token.
enum Refusal {
    Own {
        code: &'static str,
        text: String,
    },
    /// Entra's own, which IMDS hands on.
    Entra(EntraError),
}

pub(super) fn answer(call: &mut Call, world: &World) -> Response<Body> {
    let mut response = match token(call, world) {
        Ok(response) => response,
        Err(Refusal::Own { code, text }) => {
            errors::of(Endpoint::ImdsToken, StatusCode::BAD_REQUEST, code, &text)
        }
        Err(Refusal::Entra(error)) => {
            call.entry.aadsts = Some(error.code);
            error.response(&Frame::now(world.now()))
        }
    };
    let server = HeaderValue::from_static("IMDS/150.870.65.1854");
    response.headers_mut().insert(SERVER, server);
    response
}

fn token(call: &Call, world: &World) -> Result<Response<Body>, Refusal> {
    let headers = &call.head.headers;
    if header(headers, "metadata") != Some("true") {
        return Err(Refusal::Own {
            code: "bad_request_102",
            text: "Required metadata header not specified".to_owned(),
        });
    }
    // Both guard against a proxy that a stranger makes ask: it adds the one and not the other.
    if headers.contains_key("x-forwarded-for") {
        return Err(invalid("Requests with an X-Forwarded-For header are refused"));
    }
    let required = |name: &str| {
        given(&call.form, name)
            .ok_or_else(|| invalid(&format!("Required query variable '{name}' is missing")))
    };
    let version = required("api-version")?;
    if version.len() != OLDEST_VERSION.len() || version < OLDEST_VERSION {
        return Err(invalid(&format!("The api-version '{version}' is not supported")));
    }
    let resource = required("resource")?;
    let selector = Selector::of(Endpoint::ImdsToken, &call.form);
    let identity = selection::find(world, Endpoint::ImdsToken, selector.as_ref()).map_err(|why| {
        invalid(match why {
            NotFound::Unknown => errors::IDENTITY_NOT_FOUND,
            NotFound::SeveralToChooseFrom => {
                "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"
            }
            NotFound::NamedTwice => "Only one of client_id, object_id and msi_res_id may be given",
        })
    })?;
    if !cloud::is_known_resource(resource) {
        return Err(Refusal::Entra(EntraError::unknown_resource(
            resource,
            &identity.tenant,
        )));
    }
    let token = super::issue(call, identity, resource);
    let expires_in = token.expires_in.to_string();
    Ok(crate::http::json(
        StatusCode::OK,
        &json!({
            "access_token": token.text,
            "client_id": identity.client_id,
            "expires_in": expires_in,
            "expires_on": token.expires_on.to_string(),
            "ext_expires_in": expires_in,
            "not_before": token.not_before.to_string(),
            "resource": resource,
            "token_type": "Bearer",
        }),
    ))
}

fn invalid(text: &str) -> Refusal {
    Refusal::Own {
        code: "invalid_request",
        text: text.to_owned(),
    }
}
