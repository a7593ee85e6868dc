//! Verifying a client assertion against an application's federated credentials.

use serde_json::Value;

use super::errors::EntraError;
use crate::dispatch::Call;
use crate::jwt::{self, SignatureError, Unverified};
use crate::world::{Application, FederatedCredential};

const HELP: &str = "https://learn.microsoft.com/entra/workload-id/workload-identity-federation";
const CHECK: &str =
    "Check your federated identity credential Subject, Audience and Issuer against the presented assertion.";

/// Succeeds if a federated credential of the application matches the assertion, its issuer signed it, and it is valid now.
pub(crate) async fn verify(
    call: &mut Call,
    application: &Application,
    token: &str,
) -> Result<(), EntraError> {
    let assertion = Unverified::parse(token)
        .ok_or_else(|| EntraError::new(50027, "JWT token is invalid or malformed."))?;
    call.entry.issuer = assertion.text("iss").map(str::to_owned);
    call.entry.subject = assertion.text("sub").map(str::to_owned);
    let audiences = jwt::audiences(&assertion.claims);
    call.entry.audience = (!audiences.is_empty()).then(|| audiences.join(" "));

    if !assertion.is_rs256() {
        return Err(EntraError::new(
            5002730,
            "Invalid JWT token. Unsupported key for the signing algorithm.",
        ));
    }
    let issuer = matching(application, &assertion)?;
    check_signature(call, issuer, &assertion).await?;
    check_time(call, &assertion)
}

/// Finds the federated credential: issuer, then subject, then audience, each exactly and with regard to case.
fn matching<'a>(application: &'a Application, assertion: &Unverified<'_>) -> Result<&'a str, EntraError> {
    let all = &application.federated_credentials;
    if all.is_empty() {
        return Err(EntraError::new(
            70025,
            format!(
                "The client '{}' has no configured federated identity credentials.",
                application.client_id
            ),
        ));
    }
    let none = |code, what: &str, value: &str, more: &str| {
        let text = format!(
            "No matching federated identity record found for presented assertion {what} '{value}'. {more}{CHECK} {HELP}"
        );
        Err(EntraError::new(code, text))
    };
    let (issuer, subject) = (
        assertion.text("iss").unwrap_or_default(),
        assertion.text("sub").unwrap_or_default(),
    );
    let of_issuer: Vec<&FederatedCredential> = all.iter().filter(|one| one.issuer == issuer).collect();
    if of_issuer.is_empty() {
        return none(700211, "issuer", issuer, "");
    }
    let of_subject: Vec<&FederatedCredential> = of_issuer
        .iter()
        .copied()
        .filter(|one| one.subject == subject)
        .collect();
    if of_subject.is_empty() {
        if of_issuer
            .iter()
            .any(|one| one.subject.eq_ignore_ascii_case(subject))
        {
            let by_case = "The subject matches with case-insensitive comparison, but not with case-sensitive comparison. ";
            return none(7002138, "subject", subject, by_case);
        }
        return none(700213, "subject", subject, "");
    }
    let audiences = jwt::audiences(&assertion.claims);
    match of_subject
        .iter()
        .find(|one| audiences.contains(&one.audience.as_str()))
    {
        Some(found) => Ok(&found.issuer),
        None => none(700212, "audience", &audiences.join(", "), ""),
    }
}

async fn check_signature(call: &Call, issuer: &str, assertion: &Unverified<'_>) -> Result<(), EntraError> {
    let outcome = call
        .state
        .issuer_keys
        .verify(call.world.issuer(issuer), assertion)
        .await;
    let key_id = assertion
        .header
        .get("kid")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match outcome {
        Err(_) => Err(EntraError::new(
            90061,
            "Request to External OIDC endpoint failed.",
        )),
        Ok(Err(SignatureError::UnknownKey)) => Err(EntraError::new(
            7000272,
            format!(
                "The certificate with identifier {key_id} used to sign the federated credential could not be found in the metadata of identity provider {issuer}. Please validate that your Identity Provider's metadata exposes the key used to sign the incoming token."
            ),
        )),
        Ok(Err(SignatureError::Mismatch)) => Err(EntraError::new(
            700027,
            format!(
                "Client assertion contains an invalid signature. [Reason - The provided signature value did not match the expected signature value., Thumbprint of key used by client: '{key_id}']"
            ),
        )),
        Ok(Ok(())) => Ok(()),
    }
}

fn check_time(call: &Call, assertion: &Unverified<'_>) -> Result<(), EntraError> {
    let seconds = |claim: &str| {
        assertion
            .claims
            .get(claim)
            .and_then(Value::as_f64)
            .map(|number| number as i64)
    };
    let Some(expires) = seconds("exp") else {
        return Err(EntraError::new(50027, "JWT token is invalid or malformed."));
    };
    let now = call.world.now();
    let begins = seconds("nbf").or_else(|| seconds("iat")).unwrap_or(now);
    let tolerance = i64::try_from(call.world.spec.clock.tolerance.as_secs()).unwrap_or(i64::MAX / 2);
    if begins - tolerance <= now && now < expires + tolerance {
        return Ok(());
    }
    let instant = |seconds| {
        let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        time.strftime("%Y-%m-%dT%H:%M:%S.0000000Z").to_string()
    };
    Err(EntraError::new(
        700024,
        format!(
            "Client assertion is not within its valid time range. Current time: {}, assertion valid from {}, expiry time of assertion {}. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
            instant(now),
            instant(begins),
            instant(expires)
        ),
    ))
}
