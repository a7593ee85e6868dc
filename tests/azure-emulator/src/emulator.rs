//! A running emulator: its listeners, and what a test in the same process may ask of it.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::faults::{self, Fault};
use crate::log::{Credentials, RequestRecord};
use crate::state::{Keys, State};
use crate::tls::{self, Authority};
use crate::world::{World, WorldError};
use crate::{connect, connection, control};

/// Where to listen, and where to keep the certificate authority.
#[derive(Clone, Debug)]
pub struct Options {
    /// Azure itself: Entra's and the registries' HTTPS.
    pub https: SocketAddr,
    /// The control port, plain HTTP.
    pub control: SocketAddr,
    /// The CONNECT proxy; `None` for no proxy.
    pub proxy: Option<SocketAddr>,
    /// IMDS and App Service's token endpoint, plain HTTP; `None` for no managed identities.
    pub imds: Option<SocketAddr>,
    /// Folder of `ca.crt` and `ca.key`, loaded if they are there, else made. `None` keeps the authority in memory.
    pub data: Option<PathBuf>,
}

/// An emulator that runs until it is dropped.
pub struct Emulator {
    state: Arc<State>,
    authority: Arc<Authority>,
    https: SocketAddr,
    control: SocketAddr,
    proxy: Option<SocketAddr>,
    imds: Option<SocketAddr>,
    /// A runtime of its own: it outlives the test's, whichever that is. Taken on drop.
    runtime: Option<Runtime>,
}

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

// === impl Options ===

impl Default for Options {
    /// Free ports on loopback, with a proxy and managed identities, nothing on disk.
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

// === impl Emulator ===

impl Emulator {
    /// Starts an emulator. It listens when this returns. May be called from synchronous and asynchronous code.
    pub fn start(world: World, options: Options) -> Result<Self, StartError> {
        crate::use_ring();
        let broken = |what: &str, error: &dyn std::fmt::Display| StartError(format!("{what}: {error}"));
        let keys =
            Keys::built_in().ok_or_else(|| StartError("the built-in keys cannot be read".to_owned()))?;
        let authority = match &options.data {
            Some(folder) => Authority::load_or_create(folder),
            None => Authority::ephemeral(),
        };
        let authority = Arc::new(authority.map_err(|error| broken("certificate authority", &error))?);
        let state = Arc::new(State::new(world, keys));
        let config = tls::server_config(Arc::clone(&authority), Arc::clone(&state))
            .map_err(|error| broken("TLS", &error))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("azure-emulator")
            .enable_all()
            .build()
            .map_err(|error| broken("runtime", &error))?;

        let _inside = runtime.enter();
        let bind =
            |address| listen(address).map_err(|error| broken(&format!("cannot listen on {address}"), &error));
        let acceptor = TlsAcceptor::from(config);
        let (https, https_listener) = bind(options.https)?;
        let (control, control_listener) = bind(options.control)?;
        runtime.spawn(accept(
            https_listener,
            shared(&acceptor, &state, connection::serve),
        ));
        let router = control::router(Arc::clone(&state), Arc::clone(&authority));
        runtime.spawn(async { axum::serve(control_listener, router).await });
        let proxy = match options.proxy {
            Some(address) => {
                let (address, listener) = bind(address)?;
                runtime.spawn(accept(listener, shared(&acceptor, &state, connect::serve)));
                Some(address)
            }
            None => None,
        };
        let imds = match options.imds {
            Some(address) => {
                let (address, listener) = bind(address)?;
                let state = Arc::clone(&state);
                runtime.spawn(accept(listener, move |stream| {
                    connection::serve_plain(stream, Arc::clone(&state))
                }));
                Some(address)
            }
            None => None,
        };
        drop(_inside);
        Ok(Self {
            state,
            authority,
            https,
            control,
            proxy,
            imds,
            runtime: Some(runtime),
        })
    }

    /// Address of the HTTPS listener.
    pub fn https_addr(&self) -> SocketAddr {
        self.https
    }

    /// Address of the control port.
    pub fn control_addr(&self) -> SocketAddr {
        self.control
    }

    /// URL of the control port.
    pub fn control_url(&self) -> String {
        format!("http://{}", self.control)
    }

    /// Address of the CONNECT proxy, if there is one.
    pub fn proxy_addr(&self) -> Option<SocketAddr> {
        self.proxy
    }

    /// What to set `HTTPS_PROXY` to, if there is a proxy.
    pub fn proxy_url(&self) -> Option<String> {
        self.proxy.map(|address| format!("http://{address}"))
    }

    /// Address of the listener for managed identities, if there is one.
    pub fn imds_addr(&self) -> Option<SocketAddr> {
        self.imds
    }

    /// What stands for `http://169.254.169.254`, if there is a listener for managed identities.
    pub fn imds_url(&self) -> Option<String> {
        self.imds.map(|address| format!("http://{address}"))
    }

    /// What to set `IDENTITY_ENDPOINT` to, beside `IDENTITY_HEADER`, in a world with an `appService`.
    pub fn identity_endpoint(&self) -> Option<String> {
        self.imds_url().map(|url| format!("{url}/msi/token"))
    }

    /// The certificate authority that clients must trust, as PEM.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// Replaces the world, and the faults by those of the new one.
    pub fn apply(&self, world: World) {
        self.state.apply(world);
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: &[Fault]) -> Result<(), WorldError> {
        faults::check_all(faults)?;
        self.state.faults.replace(faults);
        Ok(())
    }

    /// The request log, oldest first.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.state.log.records()
    }

    /// Empties the request log.
    pub fn clear_requests(&self) {
        self.state.log.clear();
    }

    /// Every credential issued or presented so far.
    pub fn credentials(&self) -> Credentials {
        self.state.credentials.all()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // In the background, for a runtime must not be waited for inside another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<(SocketAddr, TcpListener)> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok((listener.local_addr()?, TcpListener::from_std(listener)?))
}

/// Gives a connection handler its share of what all connections use.
fn shared<F: Future<Output = ()>>(
    acceptor: &TlsAcceptor,
    state: &Arc<State>,
    serve: fn(TcpStream, TlsAcceptor, Arc<State>) -> F,
) -> impl Fn(TcpStream) -> F + use<F> {
    let (acceptor, state) = (acceptor.clone(), Arc::clone(state));
    move |stream| serve(stream, acceptor.clone(), Arc::clone(&state))
}

/// Accepts for ever, each connection in a task of its own.
async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small replies should not wait for an acknowledgement.
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream));
            }
            // Out of file descriptors, most likely: give the open connections time to end.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_emulator_can_serve_all_threads_of_a_test_program() {
        fn shareable<T: Send + Sync>() {}
        shareable::<Emulator>();
    }
}
