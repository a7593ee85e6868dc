//! The error bodies of the two endpoints: IMDS answers like OAuth, App Service in a form of its own.

use axum::body::Body;
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::endpoint::Endpoint;
use crate::http;

/// An error as the endpoint words it; App Service has no error codes.
pub(crate) fn of(endpoint: Endpoint, status: StatusCode, code: &str, text: &str) -> Response<Body> {
    match endpoint {
        Endpoint::AppServiceToken => app_service(status, text),
        _ => http::json(status, &json!({"error": code, "error_description": text})),
    }
}

pub(crate) fn app_service(status: StatusCode, message: &str) -> Response<Body> {
    let body = json!({"statusCode": status.as_u16(), "message": message, "correlationId": http::uuid()});
    http::json(status, &body)
}

/// What comes with a status that a fault asks for.
pub(crate) fn sample(endpoint: Endpoint, status: StatusCode) -> Response<Body> {
    let (code, text) = match (endpoint, status) {
        (_, StatusCode::TOO_MANY_REQUESTS) => ("invalid_request", "Temporarily throttled, too many requests"),
        (Endpoint::AppServiceToken, StatusCode::BAD_REQUEST) => ("", NO_IDENTITY),
        (Endpoint::AppServiceToken, _) => ("", AAD_TOKEN_FAILED),
        (_, StatusCode::NOT_FOUND) => ("not_found", "The endpoint is being updated. Try again later."),
        (_, StatusCode::GONE) => (
            "gone",
            "The service is being updated. It will be available within 70 seconds.",
        ),
        (_, StatusCode::BAD_REQUEST) => ("invalid_request", IDENTITY_NOT_FOUND),
        _ => ("unknown", "Failed to retrieve token from the Active directory."),
    };
    of(endpoint, status, code, text)
}

pub(crate) const IDENTITY_NOT_FOUND: &str = "Identity not found";

/// The same of App Service, where none is named.
pub(crate) const NO_IDENTITY: &str = "Unable to load the proper Managed Identity.";

/// Microsoft's spelling.
pub(crate) const AAD_TOKEN_FAILED: &str = "An unexpected error occured while fetching the AAD Token.";
