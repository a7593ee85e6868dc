//! A certificate authority of the emulator's own, and certificates by it for whatever Azure name a client asks for.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;

use crate::cloud;
use crate::log::locked;
use crate::state::State;

const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";

/// Names for clients that come by address and send no server name.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The authority: its certificate and the means to sign with it.
pub(crate) struct Authority {
    pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// Signs a certificate for each server name when it is first asked for.
struct Certificates {
    authority: Arc<Authority>,
    state: Arc<State>,
    key: KeyPair,
    signed: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

// === impl Authority ===

impl Authority {
    /// Loads the authority from the folder, or makes one and saves it there.
    pub(crate) fn load_or_create(data: &Path) -> io::Result<Self> {
        let (certificate, key) = (data.join(CA_CERTIFICATE), data.join(CA_KEY));
        let named =
            |path: &Path, error: &dyn fmt::Display| io::Error::other(format!("{}: {error}", path.display()));
        if certificate.exists() || key.exists() {
            let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| named(path, &error));
            return Self::from_pem(read(&certificate)?, &read(&key)?)
                .map_err(|error| named(&certificate, &error));
        }
        let (authority, key_pem) = Self::create().map_err(|error| named(data, &error))?;
        std::fs::create_dir_all(data).map_err(|error| named(data, &error))?;
        write_private(&key, &key_pem).map_err(|error| named(&key, &error))?;
        std::fs::write(&certificate, &authority.pem).map_err(|error| named(&certificate, &error))?;
        Ok(authority)
    }

    /// An authority that lives in memory only.
    pub(crate) fn ephemeral() -> io::Result<Self> {
        Self::create()
            .map(|(authority, _)| authority)
            .map_err(io::Error::other)
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    fn create() -> Result<(Self, String), rcgen::Error> {
        let key = KeyPair::generate()?;
        let key_pem = key.serialize_pem();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "azure-emulator");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params);
        let pem = params.self_signed(&key)?.pem();
        Ok((Self::from_pem(pem, &key_pem)?, key_pem))
    }

    fn from_pem(pem: String, key: &str) -> Result<Self, rcgen::Error> {
        use rustls::pki_types::pem::PemObject as _;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, KeyPair::from_pem(key)?)?;
        Ok(Self {
            certificate,
            issuer,
            pem,
        })
    }

    fn sign(&self, names: &[&str], key: &KeyPair) -> Result<CertificateDer<'static>, rcgen::Error> {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params);
        Ok(params.signed_by(key, &self.issuer)?.into())
    }
}

/// Far ends, so that a test with a shifted clock stays within them; before 2050 for parsers of UTCTime.
fn set_validity(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
}

/// The key is readable to its owner alone from the first byte on.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

// === impl Certificates ===

/// The TLS configuration of the HTTPS listener and of what comes through the proxy.
pub(crate) fn server_config(authority: Arc<Authority>, state: Arc<State>) -> io::Result<Arc<ServerConfig>> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificates = Certificates {
        authority,
        state,
        key,
        signed: Mutex::default(),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Certificates {
    fn certified(&self, names: &[&str]) -> Option<Arc<CertifiedKey>> {
        if let Some(known) = locked(&self.signed).get(names[0]) {
            return Some(Arc::clone(known));
        }
        let chain = vec![
            self.authority.sign(names, &self.key).ok()?,
            self.authority.certificate.clone(),
        ];
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).ok()?;
        let certified = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).ok()?;
        let certified = Arc::new(certified);
        locked(&self.signed).insert(names[0].to_owned(), Arc::clone(&certified));
        Some(certified)
    }
}

impl ResolvesServerCert for Certificates {
    /// For a name of Azure or of the world; for any other there is no certificate, and the handshake fails.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match hello.server_name() {
            None => self.certified(&LOCAL_NAMES),
            Some("localhost") => self.certified(&LOCAL_NAMES),
            Some(name) => {
                let host = cloud::normalized_host(name);
                self.state
                    .answers_for(&host)
                    .then(|| self.certified(&[&host]))
                    .flatten()
            }
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

impl State {
    /// Whether the host is one that this Azure would answer: a login host, a registry name, or a registry of the world.
    pub(crate) fn answers_for(&self, host: &str) -> bool {
        let world = self.world();
        world.is_login_host(host) || cloud::is_registry_name(host) || world.registry(host).is_some()
    }
}
