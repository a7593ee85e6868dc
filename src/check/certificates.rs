//! The served certificate, and whether the registration trusts it.

use super::{
    api::{ApiServer, Unread, items, name, text},
    reason::Reason,
    registration::published_path,
    report::Finding,
    settings::{Settings, container, mounted_file, secret_value},
    target::Target,
};
use crate::tls::CertificateChain;
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::Value;

const CHECK: &str = "certificate";

/// What the webhook serves, as the API server must see it.
struct Served {
    /// The certificate chain, in PEM.
    chain: Vec<u8>,
    /// Where the chain is stored.
    location: String,
    /// The path of the stored credentials; `None` if the caller may not read it.
    path: Option<Vec<u8>>,
    /// The namespace and the name of the Secret with the CA; `None` if the certificate comes from files.
    secret: Option<(String, String)>,
}

/// Checks the certificate.
pub async fn check(api: &ApiServer, target: &Target, settings: &Settings) -> Vec<Finding> {
    let Some(registration) = target.registration(&settings.serve.tls.webhook_configuration) else {
        return Vec::new();
    };
    let served = match served(api, target, settings).await {
        Ok(served) => served,
        Err(finding) => return vec![finding],
    };
    judge(registration, &served, Timestamp::now())
}

async fn served(api: &ApiServer, target: &Target, settings: &Settings) -> Result<Served, Finding> {
    let tls = &settings.serve.tls;
    let (namespace, secret) = settings.tls_secret(target);
    let location = format!("Secret {namespace}/{secret}");
    let path = match secret_value(api, namespace, secret, "path").await {
        Ok(path) => Some(path),
        Err(Unread::NotFound) => {
            let message =
                format!("{location} does not exist or has no path: no replica of the webhook has started");
            return Err(Finding::failed(CHECK, Reason::PathNotPublished, message));
        }
        Err(_) => None,
    };
    let deployment = target.deployment.as_ref().ok();
    if let (Some(file), Some(deployment)) = (&tls.tls_cert, deployment)
        && let Some(container) = container(deployment)
    {
        let location = format!("the file {}", file.display());
        let chain = mounted_file(api, deployment, container, file).await;
        let chain = chain.map_err(|unread| unread.finding(CHECK, &location))?;
        return Ok(Served {
            chain,
            location,
            path,
            secret: None,
        });
    }
    let chain = secret_value(api, namespace, secret, "tls.crt").await;
    let chain = chain.map_err(|unread| unread.finding(CHECK, &location))?;
    let secret = Some((namespace.to_owned(), secret.to_owned()));
    Ok(Served {
        chain,
        location,
        path,
        secret,
    })
}

/// Compares what is served with what is registered.
fn judge(registration: &Value, served: &Served, now: Timestamp) -> Vec<Finding> {
    let location = &served.location;
    let chain = match CertificateChain::parse(&served.chain) {
        Ok(chain) => chain,
        Err(why) => {
            let message = format!("the certificate of {location} cannot be read: {why}");
            return vec![Finding::failed(CHECK, Reason::CaBundleMismatch, message)];
        }
    };
    let expires = chain.not_after.strftime("%F %H:%M UTC");
    if chain.not_after <= now {
        let message = format!("the certificate of {location} expired on {expires}");
        return vec![Finding::failed(CHECK, Reason::CertificateExpired, message)];
    }
    let mut findings = Vec::new();
    let lifetime = chain.not_after.duration_since(chain.not_before);
    if chain.not_after.duration_since(now) < lifetime / 4 {
        let message = format!(
            "the certificate of {location} expires on {expires}, after more than three quarters of its lifetime; it \
             should have been renewed after two thirds"
        );
        findings.push(Finding::warning(CHECK, Reason::CertificateExpiresSoon, message));
    }
    let entries = items(registration, "/webhooks");
    let why = entries.iter().find_map(|entry| distrust(entry, &chain, now));
    if let Some(why) = why {
        let message = format!(
            "MutatingWebhookConfiguration {} does not trust the certificate of {location}: {why}",
            name(registration)
        );
        let command = republish(registration, served);
        findings.push(Finding::failed(CHECK, Reason::CaBundleMismatch, message).commands(command));
    }
    if served.path.is_some() && entries.iter().any(|entry| has_other_path(entry, served)) {
        let message = format!(
            "MutatingWebhookConfiguration {} has another path than {location}; something reverts what the webhook \
             publishes",
            name(registration)
        );
        findings.push(Finding::failed(CHECK, Reason::PathNotPublished, message));
    }
    if findings.is_empty() {
        let message =
            format!("the registration trusts the served certificate, which is valid until {expires}");
        findings.push(Finding::ok(CHECK, message));
    }
    findings
}

/// Why the API server does not accept the chain for this entry of the registration.
fn distrust(entry: &Value, chain: &CertificateChain, now: Timestamp) -> Option<String> {
    let bundle = entry.pointer("/clientConfig/caBundle").and_then(Value::as_str);
    let Some(bundle) = bundle.filter(|bundle| !bundle.is_empty()) else {
        return Some(format!("its entry {} has no caBundle", text(entry, "/name")));
    };
    let Ok(bundle) = STANDARD.decode(bundle) else {
        return Some("its caBundle is not base64".to_owned());
    };
    chain.verify(&bundle, &server_name(entry), now).err()
}

/// The name that the API server expects in the certificate.
fn server_name(entry: &Value) -> String {
    let client = &entry["clientConfig"];
    match client["url"].as_str() {
        Some(url) => {
            let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
            let host = rest.split('/').next().unwrap_or_default();
            let host = host
                .rsplit_once(':')
                .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
                .map_or(host, |(host, _)| host);
            host.trim_matches(['[', ']']).to_owned()
        }
        None => format!(
            "{}.{}.svc",
            text(client, "/service/name"),
            text(client, "/service/namespace")
        ),
    }
}

fn has_other_path(entry: &Value, served: &Served) -> bool {
    let stored = served.path.as_deref().unwrap_or_default();
    published_path(entry).is_some_and(|path| {
        path.strip_prefix("/mutate/")
            .is_none_or(|path| path.as_bytes() != stored)
    })
}

/// The command that publishes the CA of the webhook's own certificate in each entry. Nobody needs it as long as the
/// webhook itself may write the registration.
fn republish(registration: &Value, served: &Served) -> Option<String> {
    let (namespace, secret) = served.secret.as_ref()?;
    let entries = items(registration, "/webhooks").len();
    let operation = |index| {
        format!(
            r#"{{\"op\":\"add\",\"path\":\"/webhooks/{index}/clientConfig/caBundle\",\"value\":\"$CA\"}}"#
        )
    };
    let operations: Vec<_> = (0..entries).map(operation).collect();
    Some(format!(
        "CA=$(kubectl get secret --namespace {namespace} {secret} --output 'go-template={{{{index .data \
         \"ca.crt\"}}}}') && \
         kubectl patch mutatingwebhookconfiguration {} --type json --patch \"[{}]\"",
        name(registration),
        operations.join(",")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::CertificateSpec;
    use serde_json::json;
    use std::time::Duration;

    const LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

    fn issue(now: Timestamp) -> (String, Served) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let spec = CertificateSpec::new(vec!["w.ns.svc".to_owned()], LIFETIME).unwrap();
        let (path, ca, chain) = spec.issue_pem(now);
        let served = Served {
            chain: chain.into_bytes(),
            location: "Secret ns/w".to_owned(),
            path: Some(path.into_bytes()),
            secret: Some(("ns".to_owned(), "w".to_owned())),
        };
        (ca, served)
    }

    fn registration(ca: &str, served: &Served) -> Value {
        let path = format!(
            "/mutate/{}",
            String::from_utf8_lossy(served.path.as_deref().unwrap())
        );
        let client = json!({"caBundle": STANDARD.encode(ca), "service": {"name": "w", "namespace": "ns", "path": path}});
        json!({"metadata": {"name": "w"}, "webhooks": [{"name": "pods.acr-pull.dev", "clientConfig": client}]})
    }

    fn reasons(registration: &Value, served: &Served, now: Timestamp) -> Vec<&'static str> {
        judge(registration, served, now)
            .iter()
            .filter_map(|finding| finding.reason)
            .collect()
    }

    #[test]
    fn the_registration_must_trust_the_served_certificate_for_the_service() {
        let now = Timestamp::now();
        let (ca, served) = issue(now);
        let well = registration(&ca, &served);
        assert_eq!(reasons(&well, &served, now), [""; 0]);
        let (other, _) = issue(now);
        let both = registration(&format!("{other}{ca}"), &served);
        assert_eq!(reasons(&both, &served, now), [""; 0]);
        assert_eq!(
            reasons(&registration(&other, &served), &served, now),
            ["CaBundleMismatch"]
        );
        let mut changed = well.clone();
        changed["webhooks"][0]["clientConfig"]["service"]["name"] = json!("x");
        assert_eq!(reasons(&changed, &served, now), ["CaBundleMismatch"]);
        let mut without = well.clone();
        without["webhooks"][0]["clientConfig"]["caBundle"] = json!("");
        assert_eq!(reasons(&without, &served, now), ["CaBundleMismatch"]);
        let mut path = well;
        path["webhooks"][0]["clientConfig"]["service"]["path"] = json!("/mutate/0");
        assert_eq!(reasons(&path, &served, now), ["PathNotPublished"]);
    }

    #[test]
    fn a_certificate_is_reported_before_and_after_it_expires() {
        let now = Timestamp::now();
        let (ca, served) = issue(now);
        let well = registration(&ca, &served);
        let at = |share: u32| now + LIFETIME / 100 * share;
        assert_eq!(reasons(&well, &served, at(70)), [""; 0]);
        assert_eq!(reasons(&well, &served, at(80)), ["CertificateExpiresSoon"]);
        assert_eq!(reasons(&well, &served, at(101)), ["CertificateExpired"]);
    }

    #[test]
    fn neither_the_path_nor_the_certificate_is_printed() {
        let now = Timestamp::now();
        let (ca, served) = issue(now);
        let path = String::from_utf8(served.path.clone().unwrap()).unwrap();
        let (other, _) = issue(now);
        let mut broken = registration(&other, &served);
        broken["webhooks"][0]["clientConfig"]["service"]["path"] = json!("/mutate/0");
        for finding in
            judge(&broken, &served, now)
                .into_iter()
                .chain(judge(&registration(&ca, &served), &served, now))
        {
            let printed = finding.to_string();
            assert!(
                !printed.contains(&path) && !printed.contains("BEGIN"),
                "{printed}"
            );
        }
    }
}
