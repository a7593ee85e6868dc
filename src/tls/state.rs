//! What the webhook keeps in its Secret, and the next step of a rotation. Neither the clock nor the API server is used
//! here.
//!
//! A rotation does not fail a request. First the next CA is published next to the current one, and the next path is
//! accepted. When all API servers trust both CAs and all replicas accept both paths, the next certificate is served and
//! the next path is published. When this is known everywhere, the previous CA and the previous path are dropped.

use super::{
    CertificateAndKey, CertificateSpec, SecretPath,
    credentials::{PATH_KEY, ServingCredentials, SignedCertificate},
};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use secrecy::ExposeSecret;
use std::{collections::BTreeMap, fmt, time::Duration};

/// The content of the Secret.
#[derive(Clone)]
pub struct CertificateState {
    /// The credentials in use.
    pub current: ServingCredentials,
    /// The credentials that the next rotation switches to.
    next: Option<ServingCredentials>,
    /// The CA of the previous certificate.
    previous_ca: Option<String>,
    /// The previously published path.
    previous_path: Option<SecretPath>,
}

impl CertificateState {
    /// A state with these credentials, outside a rotation.
    pub fn new(current: ServingCredentials) -> Self {
        Self {
            current,
            next: None,
            previous_ca: None,
            previous_path: None,
        }
    }

    /// The CAs that API servers must trust, in PEM. None if the certificate comes from files.
    pub fn ca_bundle(&self) -> Option<String> {
        let ca = |credentials: &ServingCredentials| {
            let certificate = credentials.certificate.as_ref();
            certificate.map(|certificate| certificate.ca.clone())
        };
        let current = ca(&self.current)?;
        let all = [
            self.previous_ca.clone(),
            Some(current),
            self.next.as_ref().and_then(ca),
        ];
        Some(all.into_iter().flatten().collect())
    }

    /// The path that API servers must request.
    pub fn published_path(&self) -> &SecretPath {
        &self.current.path
    }

    /// The paths that the listener accepts: the published path, the next one, and the previous one, which some API
    /// servers may still use.
    pub fn accepted_paths(&self) -> Vec<SecretPath> {
        let next = self.next.as_ref().map(|next| &next.path);
        let all = [Some(&self.current.path), next, self.previous_path.as_ref()];
        all.into_iter().flatten().cloned().collect()
    }

    /// The next step of the rotation. The present state has been published for `published_for`. `served` is None if the
    /// certificate comes from files.
    pub fn next_step(
        &self,
        spec: &CertificateSpec,
        served: Option<&CertificateAndKey>,
        published_for: Duration,
        now: Timestamp,
    ) -> RotationStep {
        let propagation = spec.propagation_time();
        let has_previous = self.previous_ca.is_some() || self.previous_path.is_some();
        match (&self.next, has_previous) {
            (Some(_), _) if published_for >= propagation => RotationStep::Switch,
            (None, true) if published_for >= propagation => RotationStep::DropPrevious,
            (None, false) => {
                let Some(served) = served else {
                    return RotationStep::Wait(Duration::MAX);
                };
                if !spec.is_covered_by(served) {
                    return RotationStep::Prepare;
                }
                let third = SignedDuration::try_from(spec.lifetime() / 3).unwrap_or(SignedDuration::MAX);
                let left = served.not_after.duration_since(now) - third;
                match Duration::try_from(left) {
                    Ok(left) if !left.is_zero() => RotationStep::Wait(left),
                    _ => RotationStep::Prepare,
                }
            }
            _ => RotationStep::Wait(propagation - published_for),
        }
    }

    /// The state after [`RotationStep::Prepare`].
    pub fn prepared(mut self, next: ServingCredentials) -> Self {
        self.next = Some(next);
        self
    }

    /// The state after [`RotationStep::Switch`].
    pub fn switched(mut self) -> Self {
        if let Some(next) = self.next.take() {
            let previous = std::mem::replace(&mut self.current, next);
            self.previous_ca = previous.certificate.map(|certificate| certificate.ca);
            self.previous_path = Some(previous.path);
        }
        self
    }

    /// The state after [`RotationStep::DropPrevious`].
    pub fn without_previous(mut self) -> Self {
        self.previous_ca = None;
        self.previous_path = None;
        self
    }

    /// This state without its next credentials if these are invalid, so that the rotation issues new ones.
    pub fn without_invalid_next(mut self, spec: &CertificateSpec, now: Timestamp) -> Self {
        self.next = self.next.filter(|next| spec.check(next, now).is_ok());
        self
    }

    /// This state as the data of a Secret.
    pub fn to_data(&self) -> BTreeMap<String, Vec<u8>> {
        let mut data = BTreeMap::new();
        let mut put = |key: String, value: &[u8]| data.insert(key, value.to_vec());
        for (prefix, credentials) in [("", Some(&self.current)), ("next-", self.next.as_ref())] {
            let Some(ServingCredentials { path, certificate }) = credentials else {
                continue;
            };
            put(format!("{prefix}{PATH_KEY}"), path.as_bytes());
            if let Some(certificate) = certificate {
                let key = certificate.key.expose_secret();
                put(format!("{prefix}ca.crt"), certificate.ca.as_bytes());
                put(format!("{prefix}tls.crt"), certificate.chain.as_bytes());
                put(format!("{prefix}tls.key"), key.as_bytes());
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

    /// Reads the data of a Secret. [`CertificateSpec::check`] decides whether the certificates can be served.
    pub fn from_data<'a>(spec: &CertificateSpec, get: impl Fn(&str) -> Option<&'a [u8]>) -> Option<Self> {
        let path = |prefix: &str| get(&format!("{prefix}{PATH_KEY}")).and_then(SecretPath::parse);
        let credentials = |prefix: &str| {
            let certificate = if spec.has_certificate() {
                Some(SignedCertificate::from_data(prefix, &get)?)
            } else {
                None
            };
            Some(ServingCredentials {
                path: path(prefix)?,
                certificate,
            })
        };
        // The API server rejects a bundle that contains anything but certificates.
        let previous_ca = get("previous-ca.crt").filter(|ca| CertificateDer::from_pem_slice(ca).is_ok());
        let previous_ca = previous_ca.and_then(|ca| String::from_utf8(ca.to_vec()).ok());
        Some(Self {
            current: credentials("")?,
            next: credentials("next-"),
            previous_ca: previous_ca.filter(|_| spec.has_certificate()),
            previous_path: path("previous-"),
        })
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

/// The next step of a rotation.
#[derive(Debug, PartialEq, Eq)]
pub enum RotationStep {
    /// Issue the next credentials, and publish their CA.
    Prepare,
    /// The next credentials are known everywhere: serve their certificate, and publish their path.
    Switch,
    /// The previous credentials are no longer used: drop their CA and path.
    DropPrevious,
    /// Do nothing for this time.
    Wait(Duration),
}

#[cfg(test)]
mod tests;
