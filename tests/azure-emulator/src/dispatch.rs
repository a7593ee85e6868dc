//! The steps of one request: the log, the fault, the service.

use crate::{
    acr,
    azure::Azure,
    cloud,
    connection::ResetSwitch,
    endpoint::{Endpoint, Listener},
    entra,
    faults::{Effect, reply},
    http::{self, Authorization, Form},
    jwt::{SigningKey, Unverified},
    log::{LogEntry, RequestRecord},
    managed_identity,
    world::World,
};
use axum::body::Body;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{DATE, HOST},
    http::{request::Parts, uri::Authority},
};
use serde_json::Value;
use std::{
    future::pending,
    io::{self, ErrorKind},
    sync::Arc,
};
use tokio::time::sleep;

/// Answers one request. An error closes the connection without an answer.
pub async fn respond(
    azure: Arc<Azure>,
    listener: Listener,
    request: Request<Incoming>,
    reset: ResetSwitch,
) -> io::Result<Response<Body>> {
    let world = azure.world();
    let host = host_of(&request);
    let path = request.uri().path();
    let mut response = match Endpoint::of(listener, &world, &host, path, request.headers()) {
        Some(endpoint) => match Call::read(azure, world.clone(), host, endpoint, request).await {
            Ok((call, body)) => call.answer(body, &reset).await?,
            Err(refusal) => refusal,
        },
        None => not_found(&azure, &request, host),
    };
    // The date is that of the world's clock, not of the machine's.
    if let Some(date) = http::date(world.now()) {
        response.headers_mut().insert(DATE, date);
    }
    Ok(response)
}

/// A request as the services read it. A body that is not a form is passed separately.
pub struct Call {
    pub azure: Arc<Azure>,
    pub world: Arc<World>,
    pub host: String,
    pub endpoint: Endpoint,
    pub head: Parts,
    /// The form of the body, or else the query.
    pub form: Form,
    pub authorization: Option<Authorization>,
    pub log: LogEntry,
}

impl Call {
    async fn read(
        azure: Arc<Azure>,
        world: Arc<World>,
        host: String,
        endpoint: Endpoint,
        request: Request<Incoming>,
    ) -> Result<(Self, Body), Response<Body>> {
        let (head, body) = request.into_parts();
        let log = azure.log.begin(RequestRecord {
            method: head.method.to_string(),
            host: host.clone(),
            path: head.uri.path().to_owned(),
            endpoint: Some(endpoint),
            ..RequestRecord::default()
        });
        let (form, body) = if endpoint.has_form() && head.method == Method::POST {
            let form = Form::read(body).await.ok_or_else(|| {
                http::text(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "the form is too long or incomplete\n",
                )
            })?;
            (form, Body::empty())
        } else {
            let query = head.uri.query().unwrap_or_default();
            (Form::parse(query.as_bytes()), Body::new(body))
        };
        let mut call = Self {
            authorization: Authorization::of(&head.headers),
            azure,
            world,
            host,
            endpoint,
            head,
            form,
            log,
        };
        call.log_credentials();
        let scopes: Vec<&str> = call.form.all("scope").collect();
        call.log.record.scope = (!scopes.is_empty()).then(|| scopes.join(" "));
        call.log.record.client_id = call.client_id();
        Ok((call, body))
    }

    async fn answer(mut self, body: Body, reset: &ResetSwitch) -> io::Result<Response<Body>> {
        let client_id = self.log.record.client_id.as_deref();
        let Some(effect) = self.azure.faults.take(self.endpoint, &self.host, client_id) else {
            return Ok(self.serve(body).await);
        };
        let (endpoint, now) = (self.endpoint, self.world.now());
        let error = match effect {
            Effect::Hang => pending().await,
            Effect::Reset => {
                reset.set();
                return Err(ErrorKind::ConnectionReset.into());
            }
            Effect::Delay(time) => {
                sleep(time).await;
                return Ok(self.serve(body).await);
            }
            Effect::Slow(time) => return Ok(reply::slow(self.serve(body).await, time).await),
            Effect::Body(invalid) => return Ok(reply::with_body(self.serve(body).await, invalid).await),
            Effect::ExpiresIn(change) => {
                return Ok(reply::with_expires_in(self.serve(body).await, change).await);
            }
            Effect::Status {
                code,
                retry_after,
                body,
            } => reply::error(endpoint, code, retry_after, body, now).await,
            Effect::Aadsts(code) => entra::errors::requested(code).response(now),
            Effect::Redirect(location) => reply::redirect(&location),
        };
        self.log.record.status = Some(error.status().as_u16());
        Ok(error)
    }

    async fn serve(mut self, body: Body) -> Response<Body> {
        let response = match self.endpoint {
            Endpoint::EntraToken => entra::token(&mut self),
            Endpoint::EntraDiscovery => entra::discovery(&self),
            Endpoint::ImdsToken | Endpoint::AppServiceToken => managed_identity::token(&self),
            _ => acr::answer(&self, body).await,
        };
        self.log.record.status = Some(response.status().as_u16());
        response
    }

    fn log_credentials(&self) {
        let fields = [
            "client_assertion",
            "client_secret",
            "access_token",
            "refresh_token",
            "password",
        ];
        let in_form = fields.iter().filter_map(|field| self.form.get(field));
        let identity_header = self.header(managed_identity::IDENTITY_HEADER);
        let in_headers = [
            self.authorization.as_ref().map(Authorization::secret),
            identity_header,
        ];
        for credential in in_form.chain(in_headers.into_iter().flatten()) {
            self.azure.credentials.add_presented(credential);
        }
    }

    /// The application or managed identity that the form, or a token in the form or in the header, names. Not verified.
    fn client_id(&self) -> Option<String> {
        if self.endpoint.is_managed_identity() {
            return managed_identity::requested(self).map(|identity| identity.client_id.clone());
        }
        if self.endpoint.is_entra() {
            return self.form.get("client_id").map(str::to_owned);
        }
        let of_token = |token: &str| Some(Unverified::parse(token)?.text("appid")?.to_owned());
        let in_form = ["refresh_token", "access_token", "password"];
        let in_form = in_form.iter().find_map(|field| of_token(self.form.get(field)?));
        in_form.or_else(|| of_token(self.authorization.as_ref()?.secret()))
    }

    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// Signs a token and logs it. The result is empty only if the system has no randomness.
    pub fn issue(&self, key: &SigningKey, claims: &Value) -> String {
        let token = key.sign(claims).unwrap_or_default();
        self.azure.credentials.add_issued(&token);
        token
    }
}

fn host_of<B>(request: &Request<B>) -> String {
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(Authority::as_str).or(header);
    cloud::normalized_host(authority.unwrap_or_default())
}

fn not_found(azure: &Azure, request: &Request<Incoming>, host: String) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let text =
        format!("azure-emulator: this world has neither the host `{host}` nor the endpoint `{path}`\n");
    drop(azure.log.begin(RequestRecord {
        method: request.method().to_string(),
        host,
        path,
        status: Some(StatusCode::NOT_FOUND.as_u16()),
        ..RequestRecord::default()
    }));
    http::text(StatusCode::NOT_FOUND, text)
}
