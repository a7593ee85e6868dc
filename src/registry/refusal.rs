//! Explains the refusals of a registry: which host refused, why, and the command that grants the access.

use super::RegistryHost;
use crate::{
    problem::{Problem, Reason},
    transport::Reply,
};
use serde::Deserialize;

/// The problem behind a response with a status other than 200. `client_id` is that of the identity, if it is known.
pub fn error_problem(host: &RegistryHost, path: &str, reply: &Reply, client_id: Option<&str>) -> Problem {
    let status = reply.status.as_u16();
    let errors = serde_json::from_slice::<AcrErrors>(&reply.body);
    let error = errors.ok().and_then(|list| list.errors.into_iter().next());
    let detail = error.map(|error| format!("{}: {}", error.code, error.message));
    let problem = match status {
        // The exchange answers 401 to an identity without a role, also while a new role assignment is not known yet.
        401 => role_missing(host.as_str(), client_id),
        403 => Problem::new(
            Reason::RegistryRefused,
            format!(
                "{host} refused the webhook's address (HTTP 403): allow it, or resolve its private endpoint"
            ),
        ),
        404 => Problem::new(
            Reason::RegistryRefused,
            format!("{host} has no token endpoint (HTTP 404): correct spec.registry"),
        ),
        400 | 405..=407 | 410..=428 => Problem::new(
            Reason::RegistryRefused,
            format!("{host}{path} returned HTTP {status}"),
        ),
        429 => Problem::new(
            Reason::RegistryThrottled,
            format!("{host} is throttling requests (HTTP 429)"),
        ),
        _ => Problem::new(
            Reason::RegistryUnavailable,
            format!("{host}{path} returned HTTP {status}"),
        ),
    };
    problem
        .quoting(&detail.unwrap_or_default())
        .retry_after(reply.retry_after)
}

/// The problem of an identity without a role on the registry.
pub fn role_missing(host: &str, client_id: Option<&str>) -> Problem {
    let identity = match client_id {
        Some(client_id) => format!("client id {client_id}"),
        None => "the identity".to_owned(),
    };
    Problem::new(
        Reason::RoleAssignmentNotFound,
        format!("{host} gives {identity} no access: assign AcrPull (ABAC: Container Registry Repository Reader), and wait"),
    )
    .command(assign_role_command(host, client_id))
}

/// The command that lets an identity pull from a registry.
pub fn assign_role_command(host: &str, client_id: Option<&str>) -> String {
    let assignee = client_id.unwrap_or("PRINCIPAL_ID");
    // The login server of a registry may continue with a hyphen and a hash, which are not part of its name.
    let name = host.split(['.', '-']).next().unwrap_or(host);
    format!(
        "az role assignment create --role AcrPull --assignee {assignee} --scope \"$(az acr show --name {name} --query id \
         --output tsv)\""
    )
}

/// ACR's error document: `{"errors":[{"code":…,"message":…}]}`.
#[derive(Deserialize)]
struct AcrErrors {
    errors: Vec<AcrError>,
}

#[derive(Deserialize)]
struct AcrError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistrySuffixes;
    use reqwest::StatusCode;

    #[test]
    fn a_refusal_is_distinguished_from_throttling_and_an_outage() {
        let host = "azurecr.io"
            .parse::<RegistrySuffixes>()
            .unwrap()
            .permit("contoso.azurecr.io")
            .unwrap();
        let classify = |status: u16, body: &str| {
            error_problem(
                &host,
                "/oauth2/token",
                &Reply {
                    status: StatusCode::from_u16(status).unwrap(),
                    retry_after: None,
                    date: None,
                    body: body.into(),
                },
                Some("11111111-0000-0000-0000-000000000001"),
            )
        };
        let denied = classify(
            401,
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#,
        );
        assert_eq!(denied.reason, Reason::RoleAssignmentNotFound);
        let text = denied.to_string();
        for part in [
            "contoso.azurecr.io",
            "AcrPull",
            "Repository Reader",
            "11111111-0000-0000-0000-000000000001",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let command = denied.command.unwrap();
        assert_eq!(
            command.as_str(),
            "az role assignment create --role AcrPull --assignee 11111111-0000-0000-0000-000000000001 \
             --scope \"$(az acr show --name contoso --query id --output tsv)\""
        );
        let refused = classify(
            403,
            r#"{"errors":[{"code":"DENIED","message":"client with IP '1.2.3.4' is not allowed"}]}"#,
        );
        assert!(refused.to_string().contains("(DENIED: client"), "{refused}");
        for (status, reason) in [
            (403, Reason::RegistryRefused),
            (404, Reason::RegistryRefused),
            (429, Reason::RegistryThrottled),
            (500, Reason::RegistryUnavailable),
            (503, Reason::RegistryUnavailable),
            (307, Reason::RegistryUnavailable),
            (408, Reason::RegistryUnavailable),
        ] {
            assert_eq!(classify(status, "<html>").reason, reason, "{status}");
        }
    }
}
