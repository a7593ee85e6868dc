//! Entra ID: the token endpoint for client assertions and client secrets, and the documents that clients ask for first.

use axum::body::Body;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde_json::json;

use crate::dispatch::Call;
use crate::endpoint::Endpoint;
use crate::world::{Application, Tenant};
use crate::{cloud, http};
use access_token::Proof;
use errors::{EntraError, Frame};

pub(crate) mod access_token;
mod assertion;
mod discovery;
pub(crate) mod errors;
pub(crate) mod issuer_keys;

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Scopes that say how to sign in, not where to: MSAL sends them along.
const OPENID_SCOPES: [&str; 4] = ["openid", "offline_access", "profile", "email"];

pub(crate) async fn answer(call: &mut Call, endpoint: Endpoint) -> Response<Body> {
    if endpoint == Endpoint::EntraDiscovery {
        return discovery::answer(call).unwrap_or_else(|error| refuse(call, &error));
    }
    if call.head.method != Method::POST {
        let error = EntraError::new(
            900561,
            "The endpoint only accepts POST requests. Received a GET request.",
        );
        return refuse(call, &error);
    }
    match token(call).await {
        Ok(response) => response,
        Err(error) => refuse(call, &error),
    }
}

fn refuse(call: &mut Call, error: &EntraError) -> Response<Body> {
    call.entry.aadsts = Some(error.code);
    let correlation_id = call
        .head
        .headers
        .get("client-request-id")
        .and_then(|id| id.to_str().ok());
    error.response(&Frame {
        correlation_id,
        ..Frame::now(call.world.now())
    })
}

async fn token(call: &mut Call) -> Result<Response<Body>, EntraError> {
    let world = call.world.clone();
    let tenant_name = call.path().split('/').nth(1).unwrap_or_default().to_owned();
    call.entry.tenant = Some(tenant_name.clone());

    let grant = required(call, "grant_type")?;
    if grant != "client_credentials" {
        return Err(EntraError::new(
            70003,
            format!("The app requested an unsupported grant type '{grant}'."),
        ));
    }
    let client_id = required(call, "client_id")?.to_owned();
    let tenant = tenant_of(&world, &tenant_name)?;
    let application = tenant.application(&client_id).ok_or_else(|| EntraError::new(700016, format!(
        "Application with identifier '{client_id}' was not found in the directory '{tenant_name}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."
    )))?;
    let proof = authenticate(call, application).await?;
    let resource = resource(required(call, "scope")?, &tenant_name)?.to_owned();
    Ok(issue(call, tenant, application, &resource, proof))
}

fn tenant_of<'a>(world: &'a crate::world::World, name: &str) -> Result<&'a Tenant, EntraError> {
    world.tenant(name).ok_or_else(|| EntraError::new(90002, format!(
        "Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."
    )))
}

fn required<'a>(call: &'a Call, field: &str) -> Result<&'a str, EntraError> {
    match call.form.get(field) {
        Some("") => Err(EntraError::new(
            90014,
            format!(
                "The required field '{field}' is missing from the credential. Ensure that you have all the necessary parameters for the login request."
            ),
        )),
        Some(value) => Ok(value),
        None => Err(EntraError::new(
            900144,
            format!("The request body must contain the following parameter: '{field}'."),
        )),
    }
}

async fn authenticate(call: &mut Call, application: &Application) -> Result<Proof, EntraError> {
    if call.form.get("client_assertion").is_some() {
        let kind = required(call, "client_assertion_type")?;
        if kind != JWT_BEARER {
            return Err(EntraError::new(
                90023,
                format!("Unsupported 'client_assertion_type' value '{kind}'."),
            ));
        }
        let token = required(call, "client_assertion")?.to_owned();
        assertion::verify(call, application, &token).await?;
        return Ok(Proof::Assertion);
    }
    if call.form.get("client_secret").is_none() {
        return Err(EntraError::new(
            7000218,
            "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
        ));
    }
    let secret = required(call, "client_secret")?;
    if application.secrets.iter().any(|known| known == secret) {
        return Ok(Proof::Secret);
    }
    Err(EntraError::new(
        7000215,
        format!(
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{}'.",
            application.client_id
        ),
    ))
}

/// The one resource whose `/.default` is asked for.
fn resource<'a>(scope: &'a str, tenant: &str) -> Result<&'a str, EntraError> {
    let wanted: Vec<&str> = scope
        .split_whitespace()
        .filter(|one| !OPENID_SCOPES.contains(one))
        .collect();
    let resource = match wanted[..] {
        [one] => one.strip_suffix("/.default"),
        [] => None,
        _ => {
            return Err(EntraError::new(
                28000,
                format!(
                    "Provided value for the input parameter scope is not valid because it contains more than one resource. Scope {scope} is not valid."
                ),
            ));
        }
    };
    let Some(resource) = resource else {
        return Err(EntraError::new(
            1002012,
            format!(
                "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."
            ),
        ));
    };
    if cloud::is_known_resource(resource) {
        return Ok(resource);
    }
    Err(EntraError::unknown_resource(resource, tenant))
}

fn issue(
    call: &Call,
    tenant: &Tenant,
    application: &Application,
    resource: &str,
    proof: Proof,
) -> Response<Body> {
    let lifetime = call.world.spec.tokens.entra_lifetime;
    let token = access_token::issue(
        call,
        &tenant.id,
        &application.client_id,
        resource,
        proof,
        lifetime,
    );
    let mut response = http::json(
        StatusCode::OK,
        &json!({
            "token_type": "Bearer",
            "expires_in": token.expires_in,
            "ext_expires_in": token.expires_in,
            "access_token": token.text,
        }),
    );
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(scope: &str) -> u32 {
        resource(scope, "t").unwrap_err().code
    }

    #[test]
    fn exactly_one_known_resource_is_served() {
        assert_eq!(
            resource("https://containerregistry.azure.net/.default", "t").unwrap(),
            "https://containerregistry.azure.net"
        );
        assert_eq!(
            resource(
                "https://management.core.windows.net//.default openid offline_access profile",
                "t"
            )
            .unwrap(),
            "https://management.core.windows.net/"
        );
        assert_eq!(code("https://contoso.azurecr.io/.default"), 500011);
        assert_eq!(code("https://containerregistry.azure.net"), 1002012);
        assert_eq!(code("openid"), 1002012);
        assert_eq!(
            code("https://management.azure.com/.default https://containerregistry.azure.net/.default"),
            28000
        );
    }
}
