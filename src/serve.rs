//! The subcommand `serve`: builds the webhook from its flags, runs it and shuts it down.

use crate::{
    admission::{self, Admission},
    cli::ServeArgs,
    cluster::{Cluster, NamespaceScope},
    events::Events,
    excluded::ExcludedNamespaces,
    generator::NamespaceDefaults,
    identity::{AssertionSource, ClientSecretReader, EntraClient, ManagedIdentityClient, TokenSource},
    kubernetes, leader,
    pull_secret::{self, ExtraMetadata, Issuer, Resolver},
    registry::RegistryClient,
    start_error::StartError,
    tasks::{Ended, Tasks, tasks},
    telemetry::{Health, Metrics, Readiness},
    tls::{self, AcceptedPaths, CertificateSlot, CertificateSource, ListenerKind, ShutdownPhase},
    transport::{self, Gates, Preconnector},
    upkeep::{self, Upkeep},
};
use kube::Client;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
    task::{JoinError, JoinHandle},
};

/// Probes and scrapes are few. These connections never count as proven, so a higher limit would have no effect.
const MAX_ADMIN_CONNECTIONS: usize = tls::MAX_UNPROVEN;

/// The number of connections that wait to be accepted, as in tokio.
const LISTEN_BACKLOG: i32 = 1024;

/// Serves until SIGTERM or SIGINT.
pub async fn run(args: ServeArgs) -> Result<(), StartError> {
    let mut signals = Signals::listen()?;
    let (webhook, listen_addr) = listen("--listen-addr", args.listen_addr)?;
    let (admin, admin_addr) = listen("--admin-addr", args.admin_addr)?;
    let election = args.leader_election.settings()?;
    let source = args.tls.certificate_source()?;
    let metrics = Metrics::new();
    let certificate = CertificateSlot::new(metrics.clone());
    let tls = certificate.server_config(args.tls.allowed_clients().as_ref())?;
    let http = transport::client(args.extra_ca_file.as_deref())?;
    let (tasks, ended) = tasks();
    let cluster = connect(&args, &metrics, tasks.clone()).await?;

    let paths = serve_certificate(source, certificate, &cluster)?;
    let (admission, upkeep) = build(&args, &cluster, http, &metrics)?;
    let health = Health::new(cluster.readiness.clone(), metrics.clone()).router();
    // The admin listener serves until the process exits.
    let (_keep_open, never) = watch::channel(ShutdownPhase::Serving);
    tasks.spawn(
        "listener of --admin-addr",
        tls::serve(admin, ListenerKind::Admin, MAX_ADMIN_CONNECTIONS, health, never),
    );
    let (phase, draining) = watch::channel(ShutdownPhase::Serving);
    let listener = tokio::spawn(tls::serve(
        webhook,
        ListenerKind::Webhook(tls, paths),
        args.tls.max_connections as usize,
        admission::service(admission),
        draining,
    ));
    let (resign, resigned) = oneshot::channel::<()>();
    let resigned = async move { drop(resigned.await) };
    let candidate = upkeep.clone();
    let can_lead = move || candidate.can_lead();
    let lead = move |leadership| upkeep.clone().run(leadership);
    let election = tokio::spawn(leader::run(
        cluster.client,
        election,
        metrics,
        resigned,
        can_lead,
        lead,
    ));
    tracing::info!(%listen_addr, %admin_addr, version = env!("CARGO_PKG_VERSION"), "serving");

    let mut running = Running {
        listener,
        election,
        ended,
    };
    let fault = running.until_stopped(&mut signals).await;
    drop(resign);
    // Unready first: the API servers' proxies need a moment to send requests elsewhere, and existing connections still
    // lead to this replica.
    let _unready = cluster.readiness.unready("shutting down");
    drain(&phase, Duration::from_secs(args.shutdown_delay), &mut signals).await;
    fault.map_or(Ok(()), Err)?;
    running.join().await
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, StartError> {
        let terminate = signal(SignalKind::terminate());
        let interrupt = signal(SignalKind::interrupt());
        Ok(Self {
            terminate: terminate.map_err(StartError::failed("cannot listen for SIGTERM"))?,
            interrupt: interrupt.map_err(StartError::failed("cannot listen for SIGINT"))?,
        })
    }
}

/// The tasks that last as long as the process.
struct Running {
    listener: JoinHandle<()>,
    election: JoinHandle<()>,
    ended: Ended,
}

impl Running {
    /// Waits for a signal. A task that ends before it has a bug: the error names the task. A restart is better than a
    /// process whose watch has stopped or that never leads again.
    async fn until_stopped(&mut self, signals: &mut Signals) -> Option<StartError> {
        let fault = tokio::select! {
            _ = signals.terminate.recv() => return None,
            _ = signals.interrupt.recv() => return None,
            ended = self.ended.first() => ended,
            ended = &mut self.election => format!("the leader election {}", how_it_ended(&ended)),
            ended = &mut self.listener => format!("the listener of --listen-addr {}", how_it_ended(&ended)),
        };
        tracing::error!(fault, "an essential task has ended; shutting down");
        Some(StartError::Outcome(fault))
    }

    /// Waits for the last responses and for the end of the leadership.
    async fn join(self) -> Result<(), StartError> {
        let listener = self.listener.await;
        listener.map_err(StartError::failed("the listener of --listen-addr failed"))?;
        let election = self.election.await;
        election.map_err(StartError::failed("the leader election failed"))
    }
}

/// Closes each connection together with a response for this time, or until another SIGINT, and then accepts none.
async fn drain(phase: &watch::Sender<ShutdownPhase>, delay: Duration, signals: &mut Signals) {
    let _ = phase.send(ShutdownPhase::Draining);
    tracing::info!(delay = delay.as_secs(), "shutting down");
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        _ = signals.interrupt.recv() => {}
    }
    let _ = phase.send(ShutdownPhase::Stopped);
}

fn how_it_ended<T>(ended: &Result<T, JoinError>) -> &'static str {
    match ended {
        Ok(_) => "ended",
        Err(_) => "panicked",
    }
}

/// Connects to the API server.
async fn connect(args: &ServeArgs, metrics: &Metrics, tasks: Tasks) -> Result<Cluster, StartError> {
    let namespaces = NamespaceScope::new(&args.namespaces)?;
    let client = kubernetes::client().await?;
    Ok(Cluster {
        namespaces,
        readiness: Readiness::default(),
        metrics: metrics.clone(),
        events: Events::new(client.clone()),
        client,
        tasks,
    })
}

/// Serves the certificate of the files that the flags name, or issues one. Returns the paths to which requests are
/// accepted.
fn serve_certificate(
    source: CertificateSource,
    slot: CertificateSlot,
    cluster: &Cluster,
) -> Result<AcceptedPaths, StartError> {
    let CertificateSource { files, targets, spec } = source;
    if let Some((cert, key)) = files {
        tls::serve_files(&cert, &key, &slot, &cluster.tasks)?;
    }
    let paths = AcceptedPaths::default();
    cluster.tasks.spawn(
        "certificate manager",
        tls::manage(cluster.clone(), targets, spec, slot, paths.clone()),
    );
    Ok(paths)
}

/// Builds the admission, which every replica runs, and the upkeep, which only the leader runs.
fn build(
    args: &ServeArgs,
    cluster: &Cluster,
    http: reqwest::Client,
    metrics: &Metrics,
) -> Result<(Admission, Upkeep), StartError> {
    let client = &cluster.client;
    let gates = Gates::new(args.issue_concurrency, metrics.clone());
    let preconnector = Preconnector::new(http.clone(), gates.clone());
    let tokens = token_source(client, &http, &preconnector, &gates, metrics)?;
    let registry = RegistryClient::new(http, preconnector, gates.clone(), metrics.clone());
    let excluded = ExcludedNamespaces::new(kubernetes::namespace_of_this_pod(), &args.excluded_namespaces)?;
    let rules = args.resolve_rules(excluded);
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
            extra_metadata: ExtraMetadata::parse(&args.pull_secret_labels, &args.pull_secret_annotations)?,
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

/// The clients that obtain Entra tokens for each kind of identity.
fn token_source(
    client: &Client,
    http: &reqwest::Client,
    preconnector: &Preconnector,
    gates: &Gates,
    metrics: &Metrics,
) -> Result<TokenSource, StartError> {
    Ok(TokenSource {
        gates: gates.clone(),
        assertions: AssertionSource::new(client.clone(), metrics.clone()),
        client_secrets: ClientSecretReader::new(client.clone()),
        entra: EntraClient::new(http.clone(), preconnector.clone(), gates.clone(), metrics.clone()),
        managed_identities: ManagedIdentityClient::new(
            transport::machine_client()?,
            gates.clone(),
            metrics.clone(),
        ),
    })
}

/// Binds the address. Returns the bound address too, because port 0 selects a free port.
fn listen(flag: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = || StartError::failed(format!("{flag}: cannot listen on {address}"));
    let listener = bind(address)
        .or_else(|error| bind(address_without_ipv6(address, error)?))
        .map_err(failed())?;
    let bound = listener.local_addr().map_err(failed())?;
    Ok((listener, bound))
}

/// The address to bind where the node has no IPv6: `[::]` stands for all addresses, also on a node that has only IPv4.
fn address_without_ipv6(address: SocketAddr, error: io::Error) -> io::Result<SocketAddr> {
    let is_ipv6_missing =
        error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT);
    if address.ip() == Ipv6Addr::UNSPECIFIED && is_ipv6_missing {
        return Ok((Ipv4Addr::UNSPECIFIED, address.port()).into());
    }
    Err(error)
}

/// A listener on this address. On `[::]` it also accepts IPv4, whatever the default of the node
/// (`net.ipv6.bindv6only`) is.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restarted process can bind while connections of the previous one are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, TcpStream};

    #[tokio::test]
    async fn the_listener_on_all_addresses_accepts_ipv4_and_ipv6() {
        let has_ipv6 = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        let (_listener, bound) = listen("--listen-addr", "[::]:0".parse().unwrap()).unwrap();
        assert_eq!(bound.is_ipv6(), has_ipv6, "{bound}");
        for (loopback, is_reachable) in [
            (IpAddr::from(Ipv4Addr::LOCALHOST), true),
            (IpAddr::from(Ipv6Addr::LOCALHOST), has_ipv6),
        ] {
            let connected = TcpStream::connect((loopback, bound.port()));
            assert_eq!(connected.is_ok(), is_reachable, "{loopback}: {connected:?}");
        }
    }

    #[test]
    fn only_the_address_for_all_falls_back_to_ipv4() {
        let without_ipv6 = |address: &str, code| {
            let error = io::Error::from_raw_os_error(code);
            address_without_ipv6(address.parse().unwrap(), error)
                .ok()
                .map(|address| address.to_string())
        };
        for code in [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL] {
            assert_eq!(without_ipv6("[::]:8443", code).as_deref(), Some("0.0.0.0:8443"));
            assert_eq!(without_ipv6("[::1]:8443", code), None);
            assert_eq!(without_ipv6("192.0.2.1:8443", code), None);
        }
        assert_eq!(without_ipv6("[::]:8443", libc::EADDRINUSE), None);
    }
}
