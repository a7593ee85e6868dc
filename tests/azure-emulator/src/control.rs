//! The control port: the world, the faults, the request log and the credentials, over plain HTTP.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::routing::{get, put};
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::faults::Fault;
use crate::http;
use crate::state::State;
use crate::tls::Authority;
use crate::world::World;

const MAX_WORLD_BYTES: usize = 16 * 1024 * 1024;
const TEXT: &str = "text/plain; charset=utf-8";

#[derive(Clone)]
struct Control {
    state: Arc<State>,
    authority: Arc<Authority>,
}

pub(crate) fn router(state: Arc<State>, authority: Arc<Authority>) -> Router {
    let world = get(show_world).put(apply).post(apply);
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/ca.crt", get(ca))
        .route("/world", world)
        .route("/faults", put(set_faults).post(set_faults))
        .route("/requests", get(requests).delete(clear_requests))
        .route("/credentials", get(credentials))
        .layer(DefaultBodyLimit::max(MAX_WORLD_BYTES))
        .with_state(Control { state, authority })
}

async fn ca(Shared(control): Shared<Control>) -> Response<Body> {
    http::with_type(
        StatusCode::OK,
        "application/x-pem-file",
        control.authority.pem().to_owned(),
    )
}

async fn show_world(Shared(control): Shared<Control>) -> Response<Body> {
    http::with_type(
        StatusCode::OK,
        "application/yaml",
        control.state.world().yaml().to_owned(),
    )
}

async fn apply(Shared(control): Shared<Control>, yaml: String) -> Response<Body> {
    match World::parse(&yaml) {
        Ok(world) => {
            control.state.apply(world);
            http::with_type(StatusCode::OK, TEXT, "applied\n")
        }
        Err(problem) => refuse(&problem),
    }
}

async fn set_faults(Shared(control): Shared<Control>, yaml: String) -> Response<Body> {
    match Fault::parse_list(&yaml) {
        Ok(faults) => {
            control.state.faults.replace(&faults);
            http::with_type(StatusCode::OK, TEXT, "set\n")
        }
        Err(problem) => refuse(&problem),
    }
}

async fn requests(Shared(control): Shared<Control>) -> Response<Body> {
    http::json(StatusCode::OK, &json!(control.state.log.records()))
}

async fn clear_requests(Shared(control): Shared<Control>) -> StatusCode {
    control.state.log.clear();
    StatusCode::NO_CONTENT
}

async fn credentials(Shared(control): Shared<Control>) -> Response<Body> {
    http::json(StatusCode::OK, &json!(control.state.credentials.all()))
}

fn refuse(problem: &crate::WorldError) -> Response<Body> {
    http::with_type(StatusCode::UNPROCESSABLE_ENTITY, TEXT, format!("{problem}\n"))
}
