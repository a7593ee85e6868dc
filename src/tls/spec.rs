//! Issues and checks secret paths and serving certificates.

use super::{
    CertificateAndKey, SecretPath,
    credentials::{PATH_KEY, ServingCredentials, SignedCertificate},
};
use crate::start_error::StartError;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::ServerName;
use std::{net::IpAddr, time::Duration};

/// API servers whose clock is behind the webhook's by less than this accept a new certificate.
pub const CLOCK_SKEW_TOLERANCE: Duration = Duration::from_secs(3600);

/// The names and the lifetime of the certificates that the webhook issues.
#[derive(Clone, Debug)]
pub struct CertificateSpec {
    /// The DNS names and IP addresses by which the API server calls. None if the certificate comes from files: then
    /// only a path is generated.
    names: Option<Vec<String>>,
    lifetime: Duration,
}

impl CertificateSpec {
    /// A specification with these names.
    pub fn new(names: Vec<String>, lifetime: Duration) -> Result<Self, StartError> {
        for name in &names {
            if ServerName::try_from(name.as_str()).is_err() {
                return Err(StartError::Flag(format!(
                    "--tls-names: {name:?} is neither a DNS name nor an IP address"
                )));
            }
        }
        Ok(Self {
            names: Some(names),
            lifetime,
        })
    }

    /// The specification of a webhook whose certificate comes from files. Its path is used until the Secret is deleted.
    pub fn path_only(lifetime: Duration) -> Self {
        Self {
            names: None,
            lifetime,
        }
    }

    /// Whether the webhook issues its certificate itself.
    pub fn has_certificate(&self) -> bool {
        self.names.is_some()
    }

    /// The lifetime of a certificate.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The time that API servers are given to learn of a new CA, and replicas to learn of a new certificate.
    pub fn propagation_time(&self) -> Duration {
        (self.lifetime / 10).min(Duration::from_secs(60))
    }

    /// Generates a path and, unless the certificate comes from files, a CA and a certificate that it signs. If the
    /// served certificate lacks a name, its own names are added: other replicas may have been started with those.
    pub fn issue(
        &self,
        served: Option<&CertificateAndKey>,
        now: Timestamp,
    ) -> Result<ServingCredentials, String> {
        let path = SecretPath::generate().map_err(|e| format!("cannot generate a secret path: {e}"))?;
        let certificate = self.names.clone().map(|mut names| {
            if let Some(served) = served.filter(|served| !self.is_covered_by(served)) {
                let others = served.names.iter().filter(|name| !contains(&names, name));
                let others: Vec<_> = others.cloned().collect();
                names.extend(others);
            }
            self.sign(&names, now)
        });
        let certificate = certificate.transpose();
        Ok(ServingCredentials {
            path,
            certificate: certificate.map_err(|e| format!("cannot issue a certificate: {e}"))?,
        })
    }

    fn sign(&self, names: &[String], now: Timestamp) -> Result<SignedCertificate, rcgen::Error> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "acr-pull-webhook authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        self.set_validity(&mut params, now);
        let ca_key = KeyPair::generate()?;
        let ca = params.self_signed(&ca_key)?;
        let issuer = Issuer::new(params, ca_key);

        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "acr-pull-webhook");
        params.subject_alt_names = names
            .iter()
            .map(|name| subject_alternative_name(name))
            .collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        self.set_validity(&mut params, now);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(SignedCertificate {
            ca: ca.pem(),
            chain: certificate.pem(),
            key: key.serialize_pem().into(),
        })
    }

    /// The path, the CA and the chain of new credentials, for tests of other modules.
    #[cfg(test)]
    pub fn issue_pem(&self, now: Timestamp) -> (String, String, String) {
        let issued = self.issue(None, now).unwrap_or_else(|why| panic!("{why}"));
        let certificate = issued
            .certificate
            .unwrap_or_else(|| panic!("there is no certificate"));
        let path = String::from_utf8_lossy(issued.path.as_bytes()).into_owned();
        (path, certificate.ca, certificate.chain)
    }

    fn set_validity(&self, params: &mut CertificateParams, now: Timestamp) {
        let at = |time: Timestamp| {
            time::OffsetDateTime::from_unix_timestamp(time.as_second()).unwrap_or(params.not_after)
        };
        let not_after = now.saturating_add(self.lifetime).unwrap_or(Timestamp::MAX);
        let not_before = now.saturating_sub(CLOCK_SKEW_TOLERANCE).unwrap_or(Timestamp::MIN);
        (params.not_before, params.not_after) = (at(not_before), at(not_after));
    }

    /// Whether a certificate has all the names.
    pub fn is_covered_by(&self, certificate: &CertificateAndKey) -> bool {
        let mut names = self.names.iter().flatten();
        names.all(|name| contains(&certificate.names, name))
    }

    /// Returns the certificate to serve, or None if it comes from files. The error says why a client that only trusts
    /// its CA would reject it now. Its names may differ from the specified ones. Such a certificate is replaced by a
    /// rotation: replicas that were started with different names must not replace each other's certificates.
    pub fn check(
        &self,
        credentials: &ServingCredentials,
        now: Timestamp,
    ) -> Result<Option<CertificateAndKey>, String> {
        if !self.has_certificate() {
            return Ok(None);
        }
        let certificate = credentials.certificate.as_ref();
        let certificate = certificate.ok_or("there is no certificate")?;
        certificate.check(now).map(Some)
    }

    /// Returns `fresh`, with each half replaced by a valid one from the Secret's data: a certificate that is older than
    /// secret paths, or the path of a webhook whose certificate came from files.
    pub fn complete<'a>(
        &self,
        fresh: ServingCredentials,
        get: impl Fn(&str) -> Option<&'a [u8]>,
        now: Timestamp,
    ) -> ServingCredentials {
        let stored = self.names.as_ref().and_then(|_| {
            let stored = SignedCertificate::from_data("", &get)?;
            stored.check(now).ok().map(|_| stored)
        });
        ServingCredentials {
            path: get(PATH_KEY).and_then(SecretPath::parse).unwrap_or(fresh.path),
            certificate: stored.or(fresh.certificate),
        }
    }
}

fn contains(names: &[String], name: &str) -> bool {
    // An IPv6 address has several spellings.
    let address = name.parse::<IpAddr>().ok();
    names.iter().any(|other| {
        other.eq_ignore_ascii_case(name) || (address.is_some() && other.parse::<IpAddr>().ok() == address)
    })
}

fn subject_alternative_name(name: &str) -> Result<SanType, rcgen::Error> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(name.try_into()?)),
    }
}
