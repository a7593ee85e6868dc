//! The secret paths and the webhook's own CAs, each of which signs one serving certificate: the stored state and its next
//! step, as pure functions without a clock or an API server.
//!
//! A rotation loses no request. First the next CA is published beside the current one, and the next path is accepted. When
//! API servers know both CAs and replicas both paths, the next certificate is served and the next path published. When that
//! is known cluster_wide, the previous CA and path are dropped.

use super::{SecretPath, ServingCertificate};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use secrecy::{ExposeSecret, SecretString};
use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc, time::Duration};

/// A path and a certificate, which are rotated together.
#[derive(Clone)]
pub struct Generation {
    path: SecretPath,
    /// None if the certificate comes from files.
    signed: Option<SignedCertificate>,
}

/// A CA certificate and the one certificate that the CA has signed. The private key of the CA is not stored.
#[derive(Clone)]
struct SignedCertificate {
    ca: String,
    chain: String,
    key: SecretString,
}

/// The complete stored state.
#[derive(Clone)]
pub struct CertificateState {
    /// The certificate and path in use.
    pub current: Generation,
    /// The certificate and path to use next.
    next: Option<Generation>,
    /// CA of the previous certificate.
    previous_ca: Option<String>,
    /// Previously published path.
    previous_path: Option<SecretPath>,
}

/// Names and lifetime of the certificates that the webhook issues.
#[derive(Clone, Debug)]
pub struct CertificateSpec {
    /// DNS names and IP addresses by which the API server calls the webhook. None if the certificate comes from files, so that
    /// only a path is generated.
    names: Option<Vec<String>>,
    /// Lifetime of a certificate.
    lifetime: Duration,
}

/// The next step of a rotation.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Create and publish the next certificate and path.
    Prepare,
    /// The next certificate and path are known: serve the certificate and publish the path.
    Switch,
    /// The previous certificate and path are no longer used: drop the CA and the path.
    DropPrevious,
    /// Nothing is due before this time has passed.
    Wait(Duration),
}

/// Key of the path in the Secret's data.
const PATH_KEY: &str = "path";
/// `notBefore` is set back by this, for API servers whose clock is behind.
const NOT_BEFORE_MARGIN: Duration = Duration::from_secs(3600);

impl CertificateSpec {
    /// How long a change takes to reach everybody: a new CA the API servers, a new certificate the replicas.
    pub fn propagation_delay(&self) -> Duration {
        (self.lifetime / 10).min(Duration::from_secs(60))
    }

    /// Validates the names.
    pub fn new(names: Vec<String>, lifetime: Duration) -> Result<Self, String> {
        for name in &names {
            if ServerName::try_from(name.as_str()).is_err() {
                return Err(format!(
                    "--tls-names: {name:?} is neither a DNS name nor an IP address"
                ));
            }
        }
        Ok(Self {
            names: Some(names),
            lifetime,
        })
    }

    /// For a webhook whose certificate comes from files: only a path is generated, which lasts until the Secret is deleted.
    pub fn for_files(lifetime: Duration) -> Self {
        Self {
            names: None,
            lifetime,
        }
    }

    /// Generates a path and, unless the certificate comes from files, a CA and a certificate. If the served certificate lacks a
    /// configured name, the new one has the names of both, because other replicas may be configured with the former names.
    pub fn issue(&self, served: Option<&ServingCertificate>, now: Timestamp) -> Result<Generation, String> {
        let path = SecretPath::generate().map_err(|e| format!("a secret path cannot be generated: {e}"))?;
        let signed = self.names.clone().map(|mut names| {
            if let Some(served) = served.filter(|served| !self.is_covered_by(served)) {
                let others = served.names.iter().filter(|name| !contains(&names, name));
                let others: Vec<_> = others.cloned().collect();
                names.extend(others);
            }
            self.sign(&names, now)
        });
        let signed = signed.transpose();
        Ok(Generation {
            path,
            signed: signed.map_err(|e| format!("a certificate cannot be issued: {e}"))?,
        })
    }

    fn sign(&self, names: &[String], now: Timestamp) -> Result<SignedCertificate, rcgen::Error> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "acr-pull-webhook authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        self.limit(&mut params, now);
        let ca_key = KeyPair::generate()?;
        let ca = params.self_signed(&ca_key)?;
        let issuer = Issuer::new(params, ca_key);

        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "acr-pull-webhook");
        params.subject_alt_names = names
            .iter()
            .map(|name| alternative(name))
            .collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        self.limit(&mut params, now);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(SignedCertificate {
            ca: ca.pem(),
            chain: certificate.pem(),
            key: key.serialize_pem().into(),
        })
    }

    fn limit(&self, params: &mut CertificateParams, now: Timestamp) {
        let at = |time: Timestamp| {
            time::OffsetDateTime::from_unix_timestamp(time.as_second()).unwrap_or(params.not_after)
        };
        let ends = now.saturating_add(self.lifetime).unwrap_or(Timestamp::MAX);
        let begins = now.saturating_sub(NOT_BEFORE_MARGIN).unwrap_or(Timestamp::MIN);
        (params.not_before, params.not_after) = (at(begins), at(ends));
    }

    /// Whether a certificate covers all configured names.
    fn is_covered_by(&self, pair: &ServingCertificate) -> bool {
        let mut names = self.names.iter().flatten();
        names.all(|name| contains(&pair.names, name))
    }

    /// Returns the certificate to serve, or None if it comes from files. Fails if a client that trusts only its CA would not
    /// accept the certificate for its names now. These may be former names: such a certificate is replaced by a rotation, because
    /// replicas with different names must not overwrite each other's certificates.
    pub fn check(&self, issued: &Generation, now: Timestamp) -> Result<Option<ServingCertificate>, String> {
        match (&self.names, &issued.signed) {
            (None, _) => Ok(None),
            (Some(_), None) => Err("the Secret has no certificate".to_owned()),
            (Some(_), Some(signed)) => signed.check(now).map(Some),
        }
    }

    /// Replaces the parts of `fresh` that the Secret already has in usable form: a certificate from a version without paths, or
    /// the path of a webhook whose certificate came from files.
    pub fn fill_missing<'a>(
        &self,
        fresh: Generation,
        get: impl Fn(&str) -> Option<&'a [u8]>,
        now: Timestamp,
    ) -> Generation {
        let signed = self.names.as_ref().and_then(|_| {
            let found = SignedCertificate::from_data("", &get)?;
            found.check(now).ok().map(|_| found)
        });
        Generation {
            path: get(PATH_KEY).and_then(SecretPath::parse).unwrap_or(fresh.path),
            signed: signed.or(fresh.signed),
        }
    }
}

impl SignedCertificate {
    fn from_data<'a>(prefix: &str, get: impl Fn(&str) -> Option<&'a [u8]>) -> Option<Self> {
        let text = |key: &str| {
            let value = get(&format!("{prefix}{key}"))?;
            String::from_utf8(value.to_vec()).ok()
        };
        Some(Self {
            ca: text("ca.crt")?,
            chain: text("tls.crt")?,
            key: text("tls.key")?.into(),
        })
    }

    fn check(&self, now: Timestamp) -> Result<ServingCertificate, String> {
        let pair = ServingCertificate::parse(self.chain.as_bytes(), self.key.expose_secret().as_bytes())?;
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.as_bytes())
            .map_err(|e| format!("the CA certificate: {e}"))?;
        roots.add(ca).map_err(|e| format!("the CA certificate: {e}"))?;
        let verifier = WebPkiServerVerifier::builder(Arc::new(roots))
            .build()
            .map_err(|e| e.to_string())?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().max(0).unsigned_abs()));
        let (leaf, others) = pair
            .certified_key
            .cert
            .split_first()
            .ok_or("the Secret has no certificate")?;
        if pair.names.is_empty() {
            return Err("the certificate has no DNS name and no IP address".to_owned());
        }
        for name in &pair.names {
            let server = ServerName::try_from(name.as_str()).map_err(|e| format!("{name}: {e}"))?;
            verifier
                .verify_server_cert(leaf, others, &server, &[], now)
                .map_err(|e| format!("for {name}: {e}"))?;
        }
        Ok(pair)
    }
}

fn contains(names: &[String], name: &str) -> bool {
    // The same IPv6 address can be written in several ways.
    let address = name.parse::<IpAddr>().ok();
    names.iter().any(|other| {
        other.eq_ignore_ascii_case(name) || (address.is_some() && other.parse::<IpAddr>().ok() == address)
    })
}

fn alternative(name: &str) -> Result<SanType, rcgen::Error> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(name.try_into()?)),
    }
}

impl CertificateState {
    /// The initial state.
    pub fn new(current: Generation) -> Self {
        Self {
            current,
            next: None,
            previous_ca: None,
            previous_path: None,
        }
    }

    /// The CAs that API servers must trust, in PEM. None if the certificate comes from files.
    pub fn bundle(&self) -> Option<String> {
        let ca = |issued: &Generation| issued.signed.as_ref().map(|signed| signed.ca.clone());
        let current = ca(&self.current)?;
        let all = [
            self.previous_ca.clone(),
            Some(current),
            self.next.as_ref().and_then(ca),
        ];
        Some(all.into_iter().flatten().collect())
    }

    /// The path that API servers must call.
    pub fn published_path(&self) -> &SecretPath {
        &self.current.path
    }

    /// The accepted paths: the published one, the next one, and the previous one, which an API server may still use.
    pub fn accepted_paths(&self) -> Vec<SecretPath> {
        let next = self.next.as_ref().map(|next| &next.path);
        let all = [Some(&self.current.path), next, self.previous_path.as_ref()];
        all.into_iter().flatten().cloned().collect()
    }

    /// The next step. `known` is the time since the current state was published. `served` is None if it comes from files.
    pub fn step(
        &self,
        spec: &CertificateSpec,
        served: Option<&ServingCertificate>,
        known: Duration,
        now: Timestamp,
    ) -> Step {
        let propagation_delay = spec.propagation_delay();
        let previous = self.previous_ca.is_some() || self.previous_path.is_some();
        match (&self.next, previous) {
            (Some(_), _) if known >= propagation_delay => Step::Switch,
            (None, true) if known >= propagation_delay => Step::DropPrevious,
            (None, false) => {
                let Some(served) = served else {
                    return Step::Wait(Duration::MAX);
                };
                if !spec.is_covered_by(served) {
                    return Step::Prepare;
                }
                let third = SignedDuration::try_from(spec.lifetime / 3).unwrap_or(SignedDuration::MAX);
                let left = served.not_after.duration_since(now) - third;
                match Duration::try_from(left) {
                    Ok(left) if !left.is_zero() => Step::Wait(left),
                    _ => Step::Prepare,
                }
            }
            _ => Step::Wait(propagation_delay - known),
        }
    }

    /// The state with the next certificate and path added.
    pub fn with_next(mut self, next: Generation) -> Self {
        self.next = Some(next);
        self
    }

    /// The state with the next certificate and path in use.
    pub fn switched(mut self) -> Self {
        if let Some(next) = self.next.take() {
            let before = std::mem::replace(&mut self.current, next);
            self.previous_ca = before.signed.map(|signed| signed.ca);
            self.previous_path = Some(before.path);
        }
        self
    }

    /// The state without the previous CA and path.
    pub fn without_previous(mut self) -> Self {
        self.previous_ca = None;
        self.previous_path = None;
        self
    }

    /// The state as a Secret's data.
    pub fn to_data(&self) -> BTreeMap<String, Vec<u8>> {
        let mut data = BTreeMap::new();
        let mut put = |key: String, value: &[u8]| data.insert(key, value.to_vec());
        for (prefix, issued) in [("", Some(&self.current)), ("next-", self.next.as_ref())] {
            let Some(Generation { path, signed }) = issued else {
                continue;
            };
            put(format!("{prefix}{PATH_KEY}"), path.as_bytes());
            if let Some(signed) = signed {
                put(format!("{prefix}ca.crt"), signed.ca.as_bytes());
                put(format!("{prefix}tls.crt"), signed.chain.as_bytes());
                put(format!("{prefix}tls.key"), signed.key.expose_secret().as_bytes());
            }
        }
        if let Some(previous) = &self.previous_ca {
            put("previous-ca.crt".to_owned(), previous.as_bytes());
        }
        if let Some(previous) = &self.previous_path {
            put(format!("previous-{PATH_KEY}"), previous.as_bytes());
        }
        data
    }

    /// Parses a Secret's data. [`CertificateSpec::check`] decides whether the certificates can be served.
    pub fn from_data<'a>(spec: &CertificateSpec, get: impl Fn(&str) -> Option<&'a [u8]>) -> Option<Self> {
        let path = |prefix: &str| get(&format!("{prefix}{PATH_KEY}")).and_then(SecretPath::parse);
        let issued = |prefix: &str| {
            let signed = match &spec.names {
                Some(_) => Some(SignedCertificate::from_data(prefix, &get)?),
                None => None,
            };
            Some(Generation {
                path: path(prefix)?,
                signed,
            })
        };
        // The API server refuses a bundle that contains anything but certificates.
        let previous_ca = get("previous-ca.crt").filter(|ca| CertificateDer::from_pem_slice(ca).is_ok());
        let previous_ca = previous_ca.and_then(|ca| String::from_utf8(ca.to_vec()).ok());
        Some(Self {
            current: issued("")?,
            next: issued("next-"),
            previous_ca: previous_ca.filter(|_| spec.names.is_some()),
            previous_path: path("previous-"),
        })
    }

    /// Drops the next certificate and path if they are invalid; the next step then creates new ones.
    pub fn without_invalid_next(mut self, spec: &CertificateSpec, now: Timestamp) -> Self {
        self.next = self.next.filter(|next| spec.check(next, now).is_ok());
        self
    }
}

impl PartialEq for CertificateState {
    fn eq(&self, other: &Self) -> bool {
        self.to_data() == other.to_data()
    }
}

impl fmt::Debug for CertificateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateState").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
