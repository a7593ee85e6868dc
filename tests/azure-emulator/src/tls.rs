//! The emulator's certificate authority, and a certificate for each host name of Azure.

use crate::{azure::Azure, cloud};
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, ServerConfig},
    sign::CertifiedKey,
};
use std::{
    collections::HashMap,
    fmt::{self, Display},
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";

/// The certificate authority.
pub struct Authority {
    pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Loads the authority from the folder. If the folder has none, creates one in it.
    pub fn load_or_create(folder: &Path) -> io::Result<Self> {
        let (certificate, key) = (folder.join(CA_CERTIFICATE), folder.join(CA_KEY));
        if certificate.exists() || key.exists() {
            let pem = fs::read_to_string(&certificate).map_err(|error| with_path(&certificate, error))?;
            let key = fs::read_to_string(&key).map_err(|error| with_path(&key, error))?;
            return Self::from_pem(pem, &key).map_err(|error| with_path(&certificate, error));
        }
        let (authority, key_pem) = Self::create().map_err(io::Error::other)?;
        fs::create_dir_all(folder).map_err(|error| with_path(folder, error))?;
        write_private(&key, &key_pem).map_err(|error| with_path(&key, error))?;
        fs::write(&certificate, &authority.pem).map_err(|error| with_path(&certificate, error))?;
        Ok(authority)
    }

    /// Creates an authority that is not stored.
    pub fn in_memory() -> io::Result<Self> {
        let (authority, _) = Self::create().map_err(io::Error::other)?;
        Ok(authority)
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    fn create() -> Result<(Self, String), rcgen::Error> {
        let key = KeyPair::generate()?;
        let key_pem = key.serialize_pem();
        let mut params = CertificateParams::default();
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "azure-emulator");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params);
        let pem = params.self_signed(&key)?.pem();
        Ok((Self::from_pem(pem, &key_pem)?, key_pem))
    }

    fn from_pem(pem: String, key: &str) -> Result<Self, rcgen::Error> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, KeyPair::from_pem(key)?)?;
        Ok(Self {
            certificate,
            issuer,
            pem,
        })
    }

    fn sign(&self, host: &str, key: &KeyPair) -> Result<CertificateDer<'static>, rcgen::Error> {
        let mut params = CertificateParams::new([host.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, host);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params);
        Ok(params.signed_by(key, &self.issuer)?.into())
    }
}

/// A long validity for tests with another clock. It ends before 2050, when the time format of certificates changes.
fn set_validity(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
}

/// Creates a file that only its owner can read.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn with_path(path: &Path, error: impl Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// The TLS configuration of the HTTPS listener and of the connections through the proxy.
pub fn server_config(authority: Arc<Authority>, azure: Arc<Azure>) -> io::Result<Arc<ServerConfig>> {
    let certificates = Certificates {
        authority,
        azure,
        key: KeyPair::generate().map_err(io::Error::other)?,
        signed: Mutex::default(),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Signs a certificate for each host when a client first connects to it.
struct Certificates {
    authority: Arc<Authority>,
    azure: Arc<Azure>,
    key: KeyPair,
    signed: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl Certificates {
    fn certificate(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        if let Some(known) = self.signed.lock().get(host) {
            return Some(known.clone());
        }
        let chain = vec![
            self.authority.sign(host, &self.key).ok()?,
            self.authority.certificate.clone(),
        ];
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).ok()?;
        let certified = Arc::new(CertifiedKey::from_der(chain, key, &ring::default_provider()).ok()?);
        self.signed.lock().insert(host.to_owned(), certified.clone());
        Some(certified)
    }
}

impl ResolvesServerCert for Certificates {
    /// Hosts that are not Azure's have no certificate, so the handshake fails.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = cloud::normalized_host(hello.server_name()?);
        if self.azure.has_host(&host) {
            self.certificate(&host)
        } else {
            None
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}
