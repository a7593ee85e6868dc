//! The issuer of service account tokens: Entra fetches its discovery document and its keys from the internet, and
//! trusts a federated credential with exactly this issuer.

use super::{
    api::{ApiServer, text},
    reason::Reason,
    report::Finding,
};
use crate::{identity::is_private_issuer, transport, untrusted::UntrustedText};
use reqwest::StatusCode;
use serde_json::Value;
use std::collections::BTreeSet;

const CHECK: &str = "issuer";
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Compares what the API server says about its issuer with what the issuer publishes.
pub async fn check(api: &ApiServer, http: &reqwest::Client) -> Vec<Finding> {
    let document = match api.get(DISCOVERY).await {
        Ok(document) => document,
        Err(unread) => return vec![unread.finding(CHECK, "the API server's OpenID discovery document")],
    };
    let issuer = text(&document, "/issuer");
    if is_private_issuer(issuer) || !issuer.starts_with("https://") {
        let message = format!(
            "service account tokens have the issuer {}, which Entra cannot reach: workload identities need a public \
             issuer, for example of AKS with --enable-oidc-issuer",
            UntrustedText::new(issuer)
        );
        return vec![Finding::warning(CHECK, Reason::IssuerNotPublic, message)];
    }
    let url = format!("{}{DISCOVERY}", issuer.trim_end_matches('/'));
    let own_keys = api.get("/openid/v1/jwks").await.ok();
    vec![match published(http, &url).await {
        Err(why) => unreachable(&url, &why),
        Ok((published, _)) if text(&published, "/issuer") != issuer => {
            let found = UntrustedText::quoted(text(&published, "/issuer"));
            unreachable(
                &url,
                &format!("it names the issuer {found}, and the API server {issuer}"),
            )
        }
        Ok((_, keys)) => match own_keys {
            Some(own) if !contains_keys(&keys, &own) => unreachable(
                &url,
                "the published keys lack a key of this API server: the keys belong to another cluster",
            ),
            _ => Finding::ok(
                CHECK,
                format!("{issuer} publishes its discovery document and its keys"),
            ),
        },
    }]
}

/// A person's machine may have less access to the internet than Entra, so this is only a warning.
fn unreachable(url: &str, why: &str) -> Finding {
    let message = format!("Entra has to fetch {url} from the internet, and from this machine: {why}");
    Finding::warning(CHECK, Reason::IssuerUnreachable, message)
        .command(format!("curl --show-error --fail {url}"))
}

/// The discovery document and the keys that it names.
async fn published(http: &reqwest::Client, url: &str) -> Result<(Value, Value), String> {
    let document = fetch(http, url).await?;
    let keys = text(&document, "/jwks_uri");
    let keys = fetch(http, keys)
        .await
        .map_err(|why| format!("its jwks_uri {}: {why}", UntrustedText::new(keys)))?;
    Ok((document, keys))
}

async fn fetch(http: &reqwest::Client, url: &str) -> Result<Value, String> {
    let reply = transport::send(http.get(url))
        .await
        .map_err(|error| error.to_string())?;
    if reply.status != StatusCode::OK {
        return Err(format!("it returns HTTP {}", reply.status.as_u16()));
    }
    serde_json::from_slice(&reply.body).map_err(|_| "it is not a JSON document".to_owned())
}

/// Whether all keys of the API server are published.
fn contains_keys(published: &Value, own: &Value) -> bool {
    let ids = |keys: &Value| -> BTreeSet<String> {
        let keys = keys["keys"].as_array().into_iter().flatten();
        keys.filter_map(|key| key["kid"].as_str())
            .map(str::to_owned)
            .collect()
    };
    ids(own).is_subset(&ids(published))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn published_keys_must_contain_every_key_of_the_api_server() {
        let keys =
            |ids: &[&str]| json!({"keys": ids.iter().map(|id| json!({"kid": id})).collect::<Vec<_>>()});
        assert!(contains_keys(&keys(&["a", "b"]), &keys(&["a"])));
        assert!(!contains_keys(&keys(&["a"]), &keys(&["a", "b"])));
        assert!(!contains_keys(&json!({}), &keys(&["a"])));
    }
}
