//! The control port: the world, the faults, the request log and the credentials, over plain HTTP.

use crate::{
    azure::Azure,
    faults, http,
    world::{World, WorldError},
};
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, State},
    routing::{get, put},
};
use hyper::{Response, StatusCode};
use serde_json::json;
use std::sync::Arc;

const MAX_WORLD_BYTES: usize = 16 * 1024 * 1024;

pub fn router(azure: Arc<Azure>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        // kubectl can only POST through the API server's proxy.
        .route("/world", put(apply).post(apply))
        .route("/faults", put(set_faults))
        .route("/requests", get(requests).delete(clear_requests))
        .route("/credentials", get(credentials))
        .layer(DefaultBodyLimit::max(MAX_WORLD_BYTES))
        .with_state(azure)
}

async fn apply(State(azure): State<Arc<Azure>>, yaml: String) -> Response<Body> {
    answer(World::parse(&yaml).map(|world| azure.apply(world)))
}

async fn set_faults(State(azure): State<Arc<Azure>>, yaml: String) -> Response<Body> {
    answer(faults::parse(&yaml).map(|faults| azure.faults.replace(&faults)))
}

async fn requests(State(azure): State<Arc<Azure>>) -> Response<Body> {
    http::json(StatusCode::OK, &json!(azure.log.records()))
}

async fn clear_requests(State(azure): State<Arc<Azure>>) -> StatusCode {
    azure.log.clear();
    StatusCode::NO_CONTENT
}

async fn credentials(State(azure): State<Arc<Azure>>) -> Response<Body> {
    http::json(StatusCode::OK, &json!(azure.credentials.all()))
}

fn answer(result: Result<(), WorldError>) -> Response<Body> {
    match result {
        Ok(()) => http::text(StatusCode::OK, "applied\n"),
        Err(error) => http::text(StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")),
    }
}
