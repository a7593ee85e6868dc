//! A cold admission: the first Pod of an identity waits for a token. It is compared with the necessary calls alone.

use crate::{
    crowd::{Crowd, account, client_id},
    report::{Curve, Curves, Part, Row, Target, median, time},
};
use acr_pull_webhook::pull_secret::ACRPullSecret;
use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{Secret, ServiceAccount},
    },
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testkit::{
    azure::{REGISTRY, TENANT},
    namespace::TestNamespace,
    objects::from,
};

/// The delay of each hop to Azure.
const DELAYS: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
];
/// The permitted time in addition to the calls.
const MARGIN: Duration = Duration::from_millis(5);

/// The necessary calls alone.
struct Bare {
    api_server: Client,
    azure: reqwest::Client,
    namespace: TestNamespace,
}

pub async fn measure(number: usize) -> Part {
    let crowd = Crowd::new(DELAYS.len() * (3 * number + 2)).await;
    let mut numbers = 0..;
    let mut next = || numbers.next().expect("the numbers are endless");
    let bare = Bare::new(&crowd).await;
    let (mut rows, mut curves) = (Vec::new(), [Vec::new(), Vec::new()]);
    for delay in DELAYS {
        crowd.set_delay(delay);
        let warm = crowd.connected_asker(&crowd.env.webhook, 1).await;
        // Both have open connections to Azure.
        warm.ask(next()).await;
        bare.admit(next()).await;
        let (mut ours, mut first, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..number {
            calls.push(bare.admit(next()).await);
            ours.push(admit(&warm, next()).await);
            let started = crowd.env.replica().await;
            let asker = crowd.connected_asker(&started, 1).await;
            first.push(admit(&asker, next()).await);
        }
        let [ours, first, calls] = [ours, first, calls].map(median);
        let bound = calls.mul_f64(1.05) + MARGIN;
        for (what, took) in [("", ours), (", the first admission of a process", first)] {
            rows.push(Row {
                what: format!("{} per hop{what}", time(delay)),
                webhook: time(took),
                reference: format!("calls alone {}", time(calls)),
                ratio: took.div_duration_f64(bound),
                target: Some(Target::AtMost(1.0)),
            });
        }
        for (curve, took) in curves.iter_mut().zip([calls, ours]) {
            curve.push((delay.as_secs_f64() * 1e3, took.as_secs_f64() * 1e3));
        }
    }
    Part {
        title: "Cold admission",
        how: format!(
            "The first Pod of an identity; Azure delays each of its two hops. The reference is the duration of the necessary calls, \
             made in turn with the admissions: the ACRPullSecret, at the same time the assertion, the Entra token and the exchange, \
             and then the Secret. The ratio is to this duration plus 5 % plus {}. Medians of {number}.",
            time(MARGIN),
        ),
        rows,
        curves: vec![plot(curves)],
    }
}

/// The plot of the calls alone and of the webhook.
fn plot([of_calls, of_webhook]: [Vec<(f64, f64)>; 2]) -> Curves {
    Curves {
        file: "cold.svg",
        title: "Cold admission".to_owned(),
        x: "ms per hop",
        y: "ms",
        curves: vec![
            Curve {
                name: "calls alone".to_owned(),
                points: of_calls,
            },
            Curve {
                name: "webhook".to_owned(),
                points: of_webhook,
            },
        ],
    }
}

async fn admit(asker: &crate::crowd::Asker, n: usize) -> Duration {
    let answer = asker.ask(n).await;
    assert!(answer.complete, "the token came in time");
    answer.took
}

impl Bare {
    async fn new(crowd: &Crowd) -> Self {
        let env = &crowd.env;
        let ca = reqwest::Certificate::from_pem(env.azure.ca_pem().as_bytes())
            .expect("the authority is a certificate");
        let proxy = env.azure.emulator.proxy_url().expect("the emulator has a proxy");
        Self {
            api_server: env.cluster.with_webhooks_token(None).await,
            azure: reqwest::Client::builder()
                .proxy(reqwest::Proxy::all(proxy).expect("the proxy has a URL"))
                .tls_certs_only([ca])
                .build()
                .expect("a client can be built"),
            namespace: env.team_a.namespace.clone(),
        }
    }

    async fn admit(&self, n: usize) -> Duration {
        let began = Instant::now();
        let name = format!("acr-pull-bare-{}", account(n));
        let (owner, token) = tokio::join!(self.own(n, &name), self.token(n));
        let config = json!({"auths": {REGISTRY: {"username": "00000000-0000-0000-0000-000000000000", "password": token}}});
        let mut secret: Secret = from(json!({
            "metadata": {
                "name": name,
                "labels": {"app.kubernetes.io/managed-by": "acr-pull-webhook"},
                "ownerReferences": [{
                    "apiVersion": "acr-pull.dev/v1alpha1",
                    "kind": "ACRPullSecret",
                    "name": name,
                    "uid": owner.uid(),
                    "controller": true,
                }],
            },
            "type": "kubernetes.io/dockerconfigjson",
        }));
        secret.data = Some(
            [(
                ".dockerconfigjson".to_owned(),
                ByteString(config.to_string().into_bytes()),
            )]
            .into(),
        );
        let secrets = Api::<Secret>::namespaced(self.api_server.clone(), self.namespace.name());
        secrets
            .create(&PostParams::default(), &secret)
            .await
            .expect("the Secret is written");
        began.elapsed()
    }

    async fn own(&self, n: usize, name: &str) -> ACRPullSecret {
        let api = Api::<ACRPullSecret>::namespaced(self.api_server.clone(), self.namespace.name());
        let object = json!({
            "apiVersion": "acr-pull.dev/v1alpha1",
            "kind": "ACRPullSecret",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "acr-pull-webhook"}},
            "spec": {"generator": {"kind": "ACRAccessToken", "name": "contoso"}, "serviceAccountName": account(n)},
        });
        let params = PatchParams::apply("acr-pull-webhook").force();
        api.patch(name, &params, &Patch::Apply(&object))
            .await
            .expect("the ACRPullSecret is written")
    }

    async fn token(&self, n: usize) -> String {
        let accounts = Api::<ServiceAccount>::namespaced(self.api_server.clone(), self.namespace.name());
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec!["api://AzureADTokenExchange".to_owned()],
                expiration_seconds: Some(600),
                bound_object_ref: None,
            },
            ..TokenRequest::default()
        };
        let reply = accounts
            .create_token_request(&account(n), &PostParams::default(), &request)
            .await;
        let assertion = reply
            .expect("the API server issues an assertion")
            .status
            .expect("the answer contains a token")
            .token;
        let client_id = client_id(n);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &client_id),
            ("scope", "https://containerregistry.azure.net/.default"),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", &assertion),
        ];
        let url = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token");
        let entra = self.post(&url, &form, "access_token").await;
        let form = [
            ("grant_type", "access_token"),
            ("service", REGISTRY),
            ("tenant", TENANT),
            ("access_token", &entra),
        ];
        self.post(
            &format!("https://{REGISTRY}/oauth2/exchange"),
            &form,
            "refresh_token",
        )
        .await
    }

    async fn post(&self, url: &str, form: &[(&str, &str)], field: &str) -> String {
        let reply = self
            .azure
            .post(url)
            .form(form)
            .send()
            .await
            .expect("Azure answers");
        assert!(reply.status().is_success(), "{url} answered {}", reply.status());
        let reply: Value = reply.json().await.expect("Azure answers in JSON");
        reply[field]
            .as_str()
            .expect("the answer contains a token")
            .to_owned()
    }
}
