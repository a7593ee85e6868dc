//! A running emulator: its listeners, and what tests in the same process ask of it.

use crate::{
    azure::{Azure, Keys},
    connect, connection, control,
    faults::Fault,
    log::{Credentials, RequestRecord},
    tls::{self, Authority},
    world::World,
};
use rustls::crypto::ring;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

/// The pause after a failed accept. The usual cause is that all file descriptors are in use.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// The listen addresses, and the folder of the certificate authority.
#[derive(Clone, Debug)]
pub struct Options {
    /// The HTTPS listener of Entra and the registries.
    pub https: SocketAddr,
    /// The control port (HTTP).
    pub control: SocketAddr,
    /// The CONNECT proxy. `None` for no proxy.
    pub proxy: Option<SocketAddr>,
    /// The token endpoints of IMDS and App Service (HTTP). `None` for no managed identities.
    pub imds: Option<SocketAddr>,
    /// The folder of `ca.crt` and `ca.key`, which are created if they are missing. `None` keeps them in memory.
    pub data: Option<PathBuf>,
}

impl Default for Options {
    /// Free ports on loopback with proxy and managed identities, and an authority in memory.
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            https: any,
            control: any,
            proxy: Some(any),
            imds: Some(any),
            data: None,
        }
    }
}

/// An emulator that runs until it is dropped.
pub struct Emulator {
    azure: Arc<Azure>,
    authority: Arc<Authority>,
    addresses: Addresses,
    /// The emulator's own runtime, because it may outlive the test's. `None` only while dropping.
    runtime: Option<Runtime>,
}

struct Addresses {
    https: SocketAddr,
    control: SocketAddr,
    proxy: Option<SocketAddr>,
    imds: Option<SocketAddr>,
}

impl Emulator {
    /// Starts an emulator. When this returns, the emulator accepts connections. The caller may be synchronous or
    /// asynchronous.
    pub fn start(world: World, options: Options) -> Result<Self, StartError> {
        // A process has one default provider. If the test has set it already, that one stays.
        let _ = ring::default_provider().install_default();
        let keys = Keys::built_in().ok_or(StartError::Keys)?;
        let authority = match &options.data {
            Some(folder) => Authority::load_or_create(folder),
            None => Authority::in_memory(),
        };
        let authority = Arc::new(authority.map_err(StartError::Authority)?);
        let azure = Arc::new(Azure::new(world, keys));
        let config = tls::server_config(authority.clone(), azure.clone()).map_err(StartError::Tls)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("azure-emulator")
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let addresses = {
            let _context = runtime.enter();
            listen(&options, &azure, TlsAcceptor::from(config))?
        };
        Ok(Self {
            azure,
            authority,
            addresses,
            runtime: Some(runtime),
        })
    }

    /// The address of the HTTPS listener.
    pub fn https_addr(&self) -> SocketAddr {
        self.addresses.https
    }

    /// The address of the control port.
    pub fn control_addr(&self) -> SocketAddr {
        self.addresses.control
    }

    /// The address of the CONNECT proxy.
    pub fn proxy_addr(&self) -> Option<SocketAddr> {
        self.addresses.proxy
    }

    /// The address of the listener of managed identities.
    pub fn imds_addr(&self) -> Option<SocketAddr> {
        self.addresses.imds
    }

    /// The value of `HTTPS_PROXY`.
    pub fn proxy_url(&self) -> Option<String> {
        self.addresses.proxy.map(|address| format!("http://{address}"))
    }

    /// The value of `IDENTITY_ENDPOINT`.
    pub fn identity_endpoint(&self) -> Option<String> {
        self.addresses
            .imds
            .map(|address| format!("http://{address}/msi/token"))
    }

    /// The certificate authority that clients must trust, as PEM.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// Replaces the world and the faults.
    pub fn apply(&self, world: World) {
        self.azure.apply(world);
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: &[Fault]) {
        self.azure.faults.replace(faults);
    }

    /// The request log, oldest first.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.azure.log.records()
    }

    /// Empties the request log.
    pub fn clear_requests(&self) {
        self.azure.log.clear();
    }

    /// Every credential that was issued or presented.
    pub fn credentials(&self) -> Credentials {
        self.azure.credentials.all()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // In the background, because a runtime must not block inside another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A built-in key is invalid.
    #[error("the built-in keys cannot be read")]
    Keys,
    /// The certificate authority cannot be read or created.
    #[error("certificate authority: {0}")]
    Authority(#[source] io::Error),
    /// The TLS configuration is invalid.
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    /// No thread can be started.
    #[error("runtime: {0}")]
    Runtime(#[source] io::Error),
    /// An address is not available.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Opens the listeners, and starts their tasks on the current runtime.
fn listen(options: &Options, azure: &Arc<Azure>, acceptor: TlsAcceptor) -> Result<Addresses, StartError> {
    let (https, listener) = bind(options.https)?;
    let shared = (azure.clone(), acceptor.clone());
    tokio::spawn(accept(listener, move |stream| {
        let (azure, acceptor) = shared.clone();
        connection::serve(stream, acceptor, azure)
    }));
    let (control, listener) = bind(options.control)?;
    let router = control::router(azure.clone());
    tokio::spawn(async { axum::serve(listener, router).await });
    let mut addresses = Addresses {
        https,
        control,
        proxy: None,
        imds: None,
    };
    if let Some(address) = options.proxy {
        let (address, listener) = bind(address)?;
        addresses.proxy = Some(address);
        let shared = (azure.clone(), acceptor);
        tokio::spawn(accept(listener, move |stream| {
            let (azure, acceptor) = shared.clone();
            connect::serve(stream, acceptor, azure)
        }));
    }
    if let Some(address) = options.imds {
        let (address, listener) = bind(address)?;
        addresses.imds = Some(address);
        let azure = azure.clone();
        tokio::spawn(accept(listener, move |stream| {
            connection::serve_plain(stream, azure.clone())
        }));
    }
    Ok(addresses)
}

fn bind(address: SocketAddr) -> Result<(SocketAddr, TcpListener), StartError> {
    let bind = || {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok((listener.local_addr()?, TcpListener::from_std(listener)?))
    };
    bind().map_err(|source| StartError::Listen { address, source })
}

/// Serves each connection in its own task.
async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small responses must not wait for an acknowledgement. An error only means that they do.
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream));
            }
            Err(_) => sleep(ACCEPT_RETRY_DELAY).await,
        }
    }
}
