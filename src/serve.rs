//! Wiring: from flags to a running webhook.

use crate::{
    admission::{self, Admission, OnUpstreamFailure},
    cli::ServeArgs,
    cluster::{Cluster, Reach},
    events::Events,
    excluded::Excluded,
    generator::{NamespaceDefaults, Resolver},
    identity::{AssertionSource, ClientSecrets, Clouds, EntraClient, ManagedIdentityClient, TokenSource},
    kubernetes, leader,
    pull_secret::{Catalog, Issuer, issuer},
    registry::RegistryClient,
    tasks::tasks,
    telemetry::{Health, Metrics, Readiness},
    tls::{self, CertificateSlot, ListenerKind, SecretPaths, ShutdownPhase, Source},
    transport::{self, Gates, Preconnector},
    upkeep::{self, Upkeep},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
    task::JoinError,
};

/// Probes and scrapes are few. None of these is ever proven, so more would be of no use.
const MAX_ADMIN_CONNECTIONS: usize = tls::MAX_UNPROVEN;

/// Serves until SIGTERM or SIGINT; an error is a sentence for the operator.
pub async fn run(args: ServeArgs) -> Result<(), String> {
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|e| format!("SIGTERM cannot be awaited: {e}"))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|e| format!("SIGINT cannot be awaited: {e}"))?;
    let election = args.leader_election.settings()?;
    let source = args.tls.source()?;
    let reach = Reach::new(&args.namespaces)?;
    let metrics = Metrics::new();
    let certificate = CertificateSlot::new(metrics.clone());
    let tls = certificate.config(args.tls.clients().as_ref())?;
    let http = transport::client(args.extra_ca_file.as_deref())?;
    let (webhook, listen_addr) = listen("--listen-addr", args.listen_addr).await?;
    let (admin, admin_addr) = listen("--admin-addr", args.admin_addr).await?;

    let client = kubernetes::client().await?;
    let readiness = Readiness::default();
    let (tasks, mut ended) = tasks();
    let cluster = Cluster {
        client: client.clone(),
        reach,
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        events: Events::new(client.clone()),
        tasks: tasks.clone(),
    };
    let Source { files, targets, spec } = source;
    if let Some((cert, key)) = files {
        tls::follow(&cert, &key, &certificate, &tasks)?;
    }
    let paths = SecretPaths::default();
    tasks.spawn(
        "keeper of certificate and path",
        tls::manage(cluster.clone(), targets, spec, certificate, paths.clone()),
    );
    let (admission, upkeep) = parts(&args, &cluster, http, &metrics)?;

    let (drain, draining) = watch::channel(ShutdownPhase::Serving);
    let health = Health::new(readiness.clone(), metrics.clone()).router();
    // The health listener goes on to the very end; it is dropped with the process.
    let (_stay, never) = watch::channel(ShutdownPhase::Serving);
    tasks.spawn(
        "listener of --admin-addr",
        tls::serve(admin, ListenerKind::Admin, MAX_ADMIN_CONNECTIONS, health, never),
    );
    let mut serving = tokio::spawn(tls::serve(
        webhook,
        ListenerKind::Webhook(tls, paths),
        args.tls.max_connections as usize,
        admission::router(admission),
        draining,
    ));
    let (resign, resigned) = oneshot::channel::<()>();
    let resigned = async move { drop(resigned.await) };
    let candidate = upkeep.clone();
    let fit = move || candidate.is_fit();
    let lead = move |term| upkeep.clone().work(term);
    let mut election = tokio::spawn(leader::run(client, election, metrics, resigned, fit, lead));
    tracing::info!(%listen_addr, %admin_addr, version = env!("CARGO_PKG_VERSION"), "serving");

    // Only by a fault of ours does a task end that lasts as long as the process. A new process is better than one that
    // has gone half blind or never leads again.
    let fault = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = ended.first() => Some(ended),
        ended = &mut election => Some(format!("the leader election {}", how(&ended))),
        ended = &mut serving => Some(format!("the listener of --listen-addr {}", how(&ended))),
    };
    if let Some(fault) = &fault {
        tracing::error!(fault, "a task has ended that the process cannot do without");
    }
    drop(resign);
    // Not ready first: the API servers' proxies need a moment to send their requests elsewhere, and the connections
    // that they keep go on to lead here.
    readiness.wait_for("shutting down");
    let _ = drain.send(ShutdownPhase::Draining);
    tracing::info!(delay = args.shutdown_delay, "shutting down");
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(args.shutdown_delay)) => {}
        _ = interrupt.recv() => {}
    }
    let _ = drain.send(ShutdownPhase::Stopped);
    if let Some(fault) = fault {
        return Err(fault);
    }
    serving
        .await
        .map_err(|e| format!("the webhook listener ended badly: {e}"))?;
    election
        .await
        .map_err(|e| format!("the leader election ended badly: {e}"))
}

fn how<T>(ended: &Result<T, JoinError>) -> &'static str {
    match ended {
        Ok(_) => "ended",
        Err(_) => "panicked",
    }
}

/// Admission, which every replica does, and upkeep, which the leader does.
fn parts(
    args: &ServeArgs,
    cluster: &Cluster,
    http: reqwest::Client,
    metrics: &Metrics,
) -> Result<(Admission, Upkeep), String> {
    let client = &cluster.client;
    let gates = Gates::new(args.issue_concurrency, metrics.clone());
    let preconnector = Preconnector::new(http.clone(), gates.clone());
    let tokens = TokenSource {
        gates: gates.clone(),
        assertions: AssertionSource::new(client.clone(), metrics.clone()),
        client_secrets: ClientSecrets::new(client.clone()),
        entra: EntraClient::new(http.clone(), preconnector.clone(), gates.clone(), metrics.clone()),
        managed_identities: ManagedIdentityClient::new(
            transport::machine_client()?,
            gates.clone(),
            metrics.clone(),
        ),
    };
    let registry = RegistryClient::new(http, preconnector, gates.clone(), metrics.clone());
    let keep_trying = args.on_upstream_failure == OnUpstreamFailure::Admit;
    let events = cluster.events.clone();
    let issuer = Issuer::new(
        cluster,
        tokens,
        registry,
        gates,
        issuer::Settings {
            keep_trying,
            most_in_namespace: args.max_pull_secrets_per_namespace,
        },
        events.clone(),
        metrics.clone(),
    );
    let resolver = Resolver {
        suffixes: args.registry_suffixes.clone(),
        tenant_id: args.tenant_id.clone().filter(|id| !id.is_empty()),
        token_audiences: args.token_audiences.clone(),
        clouds: Clouds::new(&args.authority_host, &args.acr_audience),
        managed_identity_namespaces: args.managed_identity_namespaces.clone(),
        excluded: Excluded::new(kubernetes::pods_namespace(), &args.excluded_namespaces)?,
    };
    let catalog = Arc::new(Catalog::new(cluster, resolver, events));
    let admission = Admission::new(
        catalog.clone(),
        NamespaceDefaults::watch(cluster),
        issuer.clone(),
        args.on_upstream_failure,
        metrics.clone(),
    );
    let upkeep = Upkeep {
        cluster: cluster.clone(),
        catalog,
        issuer,
        admission: admission.clone(),
        settings: upkeep::Settings {
            unused_grace: args.unused_grace,
            unused_notice: args.unused_notice,
            concurrency: args.renewal_concurrency,
            rate: args.renewal_rate,
        },
        metrics: metrics.clone(),
    };
    Ok((admission, upkeep))
}

/// Binds, and tells the address in use: port 0 asks for any free one.
async fn listen(flag: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), String> {
    let failed = |e| format!("{flag} {address} cannot be listened on: {e}");
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
