//! Verifies a client assertion against the federated credentials of an application.

use super::errors::EntraError;
use crate::{
    dispatch::Call,
    jwt::{SignatureError, Unverified},
    world::{Application, FederatedCredential},
};
use jiff::Timestamp;
use serde_json::Value;

/// How far the current time may be outside of an assertion's validity.
const CLOCK_TOLERANCE_SECONDS: i64 = 300;

/// Succeeds if a federated credential of the application matches the assertion, its issuer signed it, and it is valid
/// now.
pub fn verify(call: &mut Call, application: &Application, token: &str) -> Result<(), EntraError> {
    let malformed = || EntraError::new(50027, "JWT token is invalid or malformed.");
    let assertion = Unverified::parse(token).ok_or_else(malformed)?;
    call.log.record.subject = assertion.text("sub").map(str::to_owned);
    call.log.record.audience = Some(assertion.audiences().join(" "));
    if !assertion.is_rs256() {
        return Err(malformed());
    }
    let issuer = matching_issuer(application, &assertion)?;
    verify_signature(call, issuer, &assertion)?;
    verify_time(call.world.now(), &assertion)
}

/// The issuer of the federated credential that matches issuer, subject and audience, including upper and lower case.
fn matching_issuer<'a>(
    application: &'a Application,
    assertion: &Unverified<'_>,
) -> Result<&'a str, EntraError> {
    let mismatch = |code, claim: &str, value: &str| {
        let text = format!(
            "No matching federated identity record found for presented assertion {claim} '{value}'. Check your federated \
             identity credential Subject, Audience and Issuer against the presented assertion."
        );
        Err(EntraError::new(code, text))
    };
    let issuer = assertion.text("iss").unwrap_or_default();
    let subject = assertion.text("sub").unwrap_or_default();
    let audiences = assertion.audiences();
    let mut credentials: Vec<&FederatedCredential> = application.federated_credentials.iter().collect();
    credentials.retain(|credential| credential.issuer == issuer);
    if credentials.is_empty() {
        return mismatch(700211, "issuer", issuer);
    }
    credentials.retain(|credential| credential.subject == subject);
    if credentials.is_empty() {
        return mismatch(700213, "subject", subject);
    }
    credentials.retain(|credential| audiences.contains(&credential.audience.as_str()));
    match credentials.first() {
        Some(credential) => Ok(&credential.issuer),
        None => mismatch(700212, "audience", &audiences.join(", ")),
    }
}

fn verify_signature(call: &Call, issuer: &str, assertion: &Unverified<'_>) -> Result<(), EntraError> {
    let Some(keys) = call.world.keys_of(issuer) else {
        return Err(EntraError::new(
            90061,
            "Request to External OIDC endpoint failed.",
        ));
    };
    keys.verify(assertion).map_err(|error| match error {
        SignatureError::UnknownKey => EntraError::new(
            7000272,
            format!("The certificate of the federated credential is not in the metadata of identity provider {issuer}."),
        ),
        SignatureError::Mismatch => EntraError::new(700027, "Client assertion contains an invalid signature."),
    })
}

fn verify_time(now: i64, assertion: &Unverified<'_>) -> Result<(), EntraError> {
    let seconds = |claim: &str| assertion.claims.get(claim).and_then(Value::as_i64);
    let begins = seconds("nbf").or_else(|| seconds("iat")).unwrap_or(now);
    let ends = seconds("exp").unwrap_or(i64::MIN);
    if begins.saturating_sub(CLOCK_TOLERANCE_SECONDS) <= now
        && now < ends.saturating_add(CLOCK_TOLERANCE_SECONDS)
    {
        return Ok(());
    }
    let time = |second| Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
    Err(EntraError::new(
        700024,
        format!(
            "Client assertion is not within its valid time range. Current time: {}, assertion valid from {}, \
             expiry time of assertion {}.",
            time(now),
            time(begins),
            time(ends)
        ),
    ))
}
