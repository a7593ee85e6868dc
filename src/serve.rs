//! The subcommand `serve`: builds the webhook from its flags, runs it and shuts it down.

use crate::{
    admission::{self, Admission},
    cli::ServeArgs,
    cluster::{Cluster, NamespaceScope},
    events::Events,
    excluded::ExcludedNamespaces,
    generator::{NamespaceDefaults, ResolveRules},
    identity::{
        AssertionSource, ClientSecretReader, Clouds, EntraClient, ManagedIdentityClient, TokenSource,
    },
    kubernetes, leader,
    pull_secret::{self, Issuer, Resolver},
    registry::RegistryClient,
    tasks::tasks,
    telemetry::{Health, Metrics, Readiness},
    tls::{self, AcceptedPaths, CertificateSlot, CertificateSource, ListenerKind, ShutdownPhase},
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

/// Probes and scrapes are few. These connections never count as proven, so a higher limit would have no effect.
const MAX_ADMIN_CONNECTIONS: usize = tls::MAX_UNPROVEN;

/// Serves until SIGTERM or SIGINT. The error is a message for the operator.
pub async fn run(args: ServeArgs) -> Result<(), String> {
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|e| format!("cannot listen for SIGTERM: {e}"))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|e| format!("cannot listen for SIGINT: {e}"))?;
    let election = args.leader_election.settings()?;
    let source = args.tls.certificate_source()?;
    let namespaces = NamespaceScope::new(&args.namespaces)?;
    let metrics = Metrics::new();
    let certificate = CertificateSlot::new(metrics.clone());
    let tls = certificate.server_config(args.tls.allowed_clients().as_ref())?;
    let http = transport::client(args.extra_ca_file.as_deref())?;
    let (webhook, listen_addr) = listen("--listen-addr", args.listen_addr).await?;
    let (admin, admin_addr) = listen("--admin-addr", args.admin_addr).await?;

    let client = kubernetes::client().await?;
    let readiness = Readiness::default();
    let (tasks, mut ended) = tasks();
    let cluster = Cluster {
        client: client.clone(),
        namespaces,
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        events: Events::new(client.clone()),
        tasks: tasks.clone(),
    };
    let CertificateSource { files, targets, spec } = source;
    if let Some((cert, key)) = files {
        tls::serve_files(&cert, &key, &certificate, &tasks)?;
    }
    let paths = AcceptedPaths::default();
    tasks.spawn(
        "certificate manager",
        tls::manage(cluster.clone(), targets, spec, certificate, paths.clone()),
    );
    let (admission, upkeep) = build(&args, &cluster, http, &metrics)?;

    let (drain, draining) = watch::channel(ShutdownPhase::Serving);
    let health = Health::new(readiness.clone(), metrics.clone()).router();
    // The admin listener serves until the process exits.
    let (_keep_open, never) = watch::channel(ShutdownPhase::Serving);
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
    let can_lead = move || candidate.can_lead();
    let lead = move |term| upkeep.clone().run(term);
    let mut election = tokio::spawn(leader::run(client, election, metrics, resigned, can_lead, lead));
    tracing::info!(%listen_addr, %admin_addr, version = env!("CARGO_PKG_VERSION"), "serving");

    // These tasks last as long as the process, so one that ends has a bug. A restart is better than a process whose
    // watch has stopped or that never leads again.
    let fault = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = ended.first() => Some(ended),
        ended = &mut election => Some(format!("the leader election {}", how_it_ended(&ended))),
        ended = &mut serving => Some(format!("the listener of --listen-addr {}", how_it_ended(&ended))),
    };
    if let Some(fault) = &fault {
        tracing::error!(fault, "an essential task has ended; shutting down");
    }
    drop(resign);
    // Unready first: the API servers' proxies need a moment to send requests elsewhere, and existing connections still
    // lead to this replica.
    readiness.set_unready("shutting down");
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
        .map_err(|e| format!("the listener of --listen-addr failed: {e}"))?;
    election
        .await
        .map_err(|e| format!("the leader election failed: {e}"))
}

fn how_it_ended<T>(ended: &Result<T, JoinError>) -> &'static str {
    match ended {
        Ok(_) => "ended",
        Err(_) => "panicked",
    }
}

/// Builds the admission, which every replica runs, and the upkeep, which only the leader runs.
fn build(
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
        client_secrets: ClientSecretReader::new(client.clone()),
        entra: EntraClient::new(http.clone(), preconnector.clone(), gates.clone(), metrics.clone()),
        managed_identities: ManagedIdentityClient::new(
            transport::machine_client()?,
            gates.clone(),
            metrics.clone(),
        ),
    };
    let registry = RegistryClient::new(http, preconnector, gates.clone(), metrics.clone());
    let rules = ResolveRules {
        registry_suffixes: args.registry_suffixes.clone(),
        tenant_id: args.tenant_id.clone().filter(|id| !id.is_empty()),
        token_audiences: args.token_audiences.clone(),
        clouds: Clouds::new(&args.authority_host, &args.acr_audience),
        managed_identity_namespaces: args.managed_identity_namespaces.clone(),
        excluded: ExcludedNamespaces::new(kubernetes::namespace_of_this_pod(), &args.excluded_namespaces)?,
    };
    let resolver = Arc::new(Resolver::new(cluster, rules, cluster.events.clone()));
    let issuer = Issuer::new(
        cluster,
        resolver.clone(),
        tokens,
        registry,
        gates,
        pull_secret::Settings {
            on_upstream_failure: args.on_upstream_failure,
            max_per_namespace: args.max_pull_secrets_per_namespace,
        },
        metrics.clone(),
    );
    let admission = Admission::new(
        resolver.clone(),
        NamespaceDefaults::watch(cluster),
        issuer.clone(),
        metrics.clone(),
    );
    let upkeep = Upkeep {
        cluster: cluster.clone(),
        resolver,
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

/// Binds the address. Returns the bound address too, because port 0 selects a free port.
async fn listen(flag: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), String> {
    let failed = |e| format!("{flag}: cannot listen on {address}: {e}");
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
