//! The way of one request: log, fault, service.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::header::{DATE, HOST};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;

use crate::connection::ResetSwitch;
use crate::endpoint::{Endpoint, Listener};
use crate::entra::errors::Frame;
use crate::faults::reply::{self, Effect};
use crate::http::{self, Authorization, Form};
use crate::jwt::Unverified;
use crate::log::{Entry, RequestRecord};
use crate::state::State;
use crate::world::World;
use crate::{acr, cloud, entra, managed_identity};

/// A request with everything that the services look at; its body, if not a form, goes beside it.
pub(crate) struct Call {
    pub(crate) state: Arc<State>,
    pub(crate) world: Arc<World>,
    pub(crate) host: String,
    pub(crate) head: Parts,
    /// The form body, or where there is none, the query.
    pub(crate) form: Form,
    pub(crate) authorization: Option<Authorization>,
    pub(crate) entry: Entry,
}

/// Answers one request. An error closes the connection without a reply.
pub(crate) async fn dispatch(
    state: Arc<State>,
    listener: Listener,
    request: Request<Incoming>,
    reset: ResetSwitch,
) -> io::Result<Response<Body>> {
    let clock = state.clone();
    let mut response = answer(state, listener, request, reset).await?;
    // By this world's clock, not by the machine's.
    if let Some(date) = http::date(clock.world().now()) {
        response.headers_mut().insert(DATE, date);
    }
    Ok(response)
}

async fn answer(
    state: Arc<State>,
    listener: Listener,
    request: Request<Incoming>,
    reset: ResetSwitch,
) -> io::Result<Response<Body>> {
    let world = state.world();
    let host = host_of(&request);
    let path = request.uri().path().to_owned();
    let Some(endpoint) = Endpoint::of(listener, &world, &host, &path, request.headers()) else {
        return Ok(nobody(&state, listener, &request, host, path));
    };
    let (mut call, body) = match read(state, world, host, endpoint, request).await {
        Ok(call) => call,
        Err(refusal) => return Ok(refusal),
    };
    call.note_credentials();
    let client_id = call.client_id(endpoint);
    call.entry.client_id = client_id.clone();

    let fault = call
        .state
        .faults
        .strike(endpoint, &call.host, client_id.as_deref());
    let Some(fault) = fault else {
        return Ok(call.serve(endpoint, body).await);
    };
    call.entry.fault = Some(fault.to_string());
    if let Some(delay) = fault.delay {
        tokio::time::sleep(delay).await;
    }
    match reply::effect(&fault, &Frame::now(call.world.now())) {
        Effect::Hang => std::future::pending().await,
        Effect::Reset => {
            reset.pull();
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Effect::Answer(response) => {
            let response = reply::spoil(&fault, response).await;
            call.entry.status = Some(response.status().as_u16());
            call.entry.aadsts = fault.aadsts;
            Ok(response)
        }
        Effect::Spoil => Ok(reply::spoil(&fault, call.serve(endpoint, body).await).await),
    }
}

async fn read(
    state: Arc<State>,
    world: Arc<World>,
    host: String,
    endpoint: Endpoint,
    request: Request<Incoming>,
) -> Result<(Call, Body), Response<Body>> {
    let (head, body) = request.into_parts();
    let query = Form::parse(head.uri.query().unwrap_or_default().as_bytes());
    let mut entry = state.log.begin(RequestRecord {
        method: head.method.to_string(),
        host: host.clone(),
        path: head.uri.path().to_owned(),
        endpoint: Some(endpoint),
        query_keys: query.keys(),
        ..RequestRecord::default()
    });
    let (form, body) = if endpoint.has_form() && head.method == Method::POST {
        let Some(form) = Form::read(body).await else {
            entry.status = Some(StatusCode::PAYLOAD_TOO_LARGE.as_u16());
            return Err(http::with_type(
                StatusCode::PAYLOAD_TOO_LARGE,
                "text/plain",
                "the form is too long\n",
            ));
        };
        entry.form_keys = form.keys();
        (form, Body::empty())
    } else {
        (query, Body::new(body))
    };
    if endpoint.has_form() {
        entry.grant_type = form.get("grant_type").map(str::to_owned);
        let scopes: Vec<&str> = form.all("scope").collect();
        entry.scope = (!scopes.is_empty()).then(|| scopes.join(" "));
    }
    let authorization = Authorization::of(&head.headers);
    Ok((
        Call {
            state,
            world,
            host,
            head,
            form,
            authorization,
            entry,
        },
        body,
    ))
}

// === impl Call ===

impl Call {
    async fn serve(mut self, endpoint: Endpoint, body: Body) -> Response<Body> {
        let response = match endpoint {
            Endpoint::EntraToken | Endpoint::EntraDiscovery => entra::answer(&mut self, endpoint).await,
            Endpoint::ImdsToken | Endpoint::AppServiceToken => managed_identity::answer(&mut self, endpoint),
            _ => acr::answer(&mut self, endpoint, body).await,
        };
        self.entry.status = Some(response.status().as_u16());
        response
    }

    fn note_credentials(&self) {
        let fields = [
            "client_assertion",
            "client_secret",
            "access_token",
            "refresh_token",
            "password",
        ];
        let sent = fields.iter().filter_map(|field| self.form.get(field));
        let identity_header = self.head.headers.get(managed_identity::IDENTITY_HEADER);
        let in_headers = [
            self.authorization.as_ref().map(Authorization::secret),
            identity_header.and_then(|value| value.to_str().ok()),
        ];
        for credential in sent.chain(in_headers.into_iter().flatten()) {
            self.state.credentials.presented(credential);
        }
    }

    /// The application that asks: as the form says, or a token in it, or the one in the header. Not verified.
    fn client_id(&mut self, endpoint: Endpoint) -> Option<String> {
        if endpoint.is_managed_identity() {
            return managed_identity::note(self, endpoint);
        }
        let of_token = |token: &str| Some(Unverified::parse(token)?.text("appid")?.to_owned());
        let in_form = ["refresh_token", "access_token", "password"];
        self.form
            .get("client_id")
            .filter(|_| endpoint.is_entra())
            .map(str::to_owned)
            .or_else(|| in_form.iter().find_map(|field| of_token(self.form.get(field)?)))
            .or_else(|| of_token(self.authorization.as_ref()?.secret()))
    }

    pub(crate) fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// Signs claims and remembers the token. An empty string only if the system has no randomness.
    pub(crate) fn issue(&self, key: &crate::jwt::SigningKey, claims: &Value) -> String {
        let token = key.sign(claims).unwrap_or_default();
        self.state.credentials.issued(&token);
        token
    }
}

fn host_of<B>(request: &Request<B>) -> String {
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let authority = request
        .uri()
        .authority()
        .map(hyper::http::uri::Authority::as_str)
        .or(header);
    cloud::normalized_host(authority.unwrap_or_default())
}

fn nobody(
    state: &Arc<State>,
    listener: Listener,
    request: &Request<Incoming>,
    host: String,
    path: String,
) -> Response<Body> {
    let text = match listener {
        Listener::Azure => {
            format!("azure-emulator: `{host}` is neither a login host nor a registry of this world\n")
        }
        Listener::Metadata => format!(
            "azure-emulator: here are /metadata/identity/oauth2/token and, if the world has an appService, /msi/token; not `{path}`\n"
        ),
    };
    let response = http::with_type(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", text);
    drop(state.log.begin(RequestRecord {
        method: request.method().to_string(),
        host,
        path,
        status: Some(response.status().as_u16()),
        ..RequestRecord::default()
    }));
    response
}
