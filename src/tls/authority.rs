//! The webhook's own certificate authorities, each for one serving certificate: what is kept, and what is to be done
//! next. No clock, no API server.
//!
//! A rotation loses no request: the next authority is published beside the current one; when API servers know both, the
//! next certificate is served; when that is served everywhere, the authority of before is forgotten.

use super::Pair;
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

/// An authority's certificate, and the one pair that it has signed. The authority's key is not kept by anybody.
#[derive(Clone)]
pub struct Issued {
    ca: String,
    chain: String,
    key: SecretString,
}

/// Everything that is kept.
#[derive(Clone)]
pub struct Kept {
    /// What is served.
    pub current: Issued,
    /// What is served next.
    next: Option<Issued>,
    /// Authority of what was served before.
    previous_ca: Option<String>,
}

/// For whom certificates are made, and for how long.
#[derive(Clone, Debug)]
pub struct Terms {
    /// DNS names and IP addresses by which the API server calls.
    pub names: Vec<String>,
    /// From making to end.
    lifetime: Duration,
}

/// What is to be done with what is kept.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The next certificate is to be made and published.
    Prepare,
    /// The next certificate is known: it is to be served.
    Switch,
    /// The one of before is served no more: its authority is to be forgotten.
    Forget,
    /// Nothing before this.
    Wait(Duration),
}

/// API servers whose clock is behind ours take a new certificate too.
const BACKDATED: Duration = Duration::from_secs(3600);

// === impl Terms ===

impl Terms {
    /// How long everybody is given to learn of a change: API servers of a new authority, replicas of a new certificate.
    pub fn hold(&self) -> Duration {
        (self.lifetime / 10).min(Duration::from_secs(60))
    }

    /// Terms that certificates can be made for.
    pub fn new(names: Vec<String>, lifetime: Duration) -> Result<Self, String> {
        for name in &names {
            if ServerName::try_from(name.as_str()).is_err() {
                return Err(format!(
                    "--tls-names: {name:?} is neither a DNS name nor an IP address"
                ));
            }
        }
        Ok(Self { names, lifetime })
    }

    /// Makes an authority and a pair signed by it.
    pub fn issue(&self, now: Timestamp) -> Result<Issued, rcgen::Error> {
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
        params.subject_alt_names = self
            .names
            .iter()
            .map(|name| alternative(name))
            .collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        self.limit(&mut params, now);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Issued {
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
        let begins = now.saturating_sub(BACKDATED).unwrap_or(Timestamp::MIN);
        (params.not_before, params.not_after) = (at(begins), at(ends));
    }

    /// The pair, if it serves these names for some time from now, as who trusts its authority alone would see it.
    pub fn check(&self, issued: &Issued, now: Timestamp) -> Result<Pair, String> {
        let pair = Pair::parse(issued.chain.as_bytes(), issued.key.expose_secret().as_bytes())?;
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(issued.ca.as_bytes())
            .map_err(|e| format!("the authority: {e}"))?;
        roots.add(ca).map_err(|e| format!("the authority: {e}"))?;
        let verifier = WebPkiServerVerifier::builder(Arc::new(roots))
            .build()
            .map_err(|e| e.to_string())?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().max(0).unsigned_abs()));
        let (leaf, others) = pair
            .certified
            .cert
            .split_first()
            .ok_or("there is no certificate")?;
        for name in &self.names {
            let server = ServerName::try_from(name.as_str()).map_err(|e| format!("{name}: {e}"))?;
            verifier
                .verify_server_cert(leaf, others, &server, &[], now)
                .map_err(|e| format!("for {name}: {e}"))?;
        }
        Ok(pair)
    }
}

fn alternative(name: &str) -> Result<SanType, rcgen::Error> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(name.try_into()?)),
    }
}

// === impl Kept ===

impl Kept {
    /// A beginning.
    pub fn new(current: Issued) -> Self {
        Self {
            current,
            next: None,
            previous_ca: None,
        }
    }

    /// The authorities that API servers are to trust, in PEM.
    pub fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| next.ca.as_str());
        let all = [self.previous_ca.as_deref(), Some(self.current.ca.as_str()), next];
        all.into_iter().flatten().collect()
    }

    /// The next step, `known` long after everybody was told of the present state.
    pub fn step(&self, terms: &Terms, pair: &Pair, known: Duration, now: Timestamp) -> Step {
        let hold = terms.hold();
        match (&self.next, &self.previous_ca) {
            (Some(_), _) if known >= hold => Step::Switch,
            (None, Some(_)) if known >= hold => Step::Forget,
            (None, None) => {
                let third = SignedDuration::try_from(terms.lifetime / 3).unwrap_or(SignedDuration::MAX);
                let left = pair.ends.duration_since(now) - third;
                match Duration::try_from(left) {
                    Ok(left) if !left.is_zero() => Step::Wait(left),
                    _ => Step::Prepare,
                }
            }
            _ => Step::Wait(hold - known),
        }
    }

    /// With the next one prepared.
    pub fn prepared(mut self, next: Issued) -> Self {
        self.next = Some(next);
        self
    }

    /// With the next one served.
    pub fn switched(mut self) -> Self {
        if let Some(next) = self.next.take() {
            let before = std::mem::replace(&mut self.current, next);
            self.previous_ca = Some(before.ca);
        }
        self
    }

    /// With the one of before forgotten.
    pub fn forgotten(mut self) -> Self {
        self.previous_ca = None;
        self
    }

    /// As a Secret's data.
    pub fn to_data(&self) -> BTreeMap<String, Vec<u8>> {
        let mut data = BTreeMap::new();
        let mut put = |key: &str, value: &str| data.insert(key.to_owned(), value.as_bytes().to_vec());
        for (prefix, issued) in [("", Some(&self.current)), ("next-", self.next.as_ref())] {
            if let Some(issued) = issued {
                put(&format!("{prefix}ca.crt"), &issued.ca);
                put(&format!("{prefix}tls.crt"), &issued.chain);
                put(&format!("{prefix}tls.key"), issued.key.expose_secret());
            }
        }
        if let Some(previous) = &self.previous_ca {
            put("previous-ca.crt", previous);
        }
        data
    }

    /// From a Secret's data, as far as it is text; whether it can be served is for [`Terms::check`].
    pub fn from_data<'a>(get: impl Fn(&str) -> Option<&'a [u8]>) -> Option<Self> {
        let text = |key: &str| get(key).and_then(|value| String::from_utf8(value.to_vec()).ok());
        let issued = |prefix: &str| {
            Some(Issued {
                ca: text(&format!("{prefix}ca.crt"))?,
                chain: text(&format!("{prefix}tls.crt"))?,
                key: text(&format!("{prefix}tls.key"))?.into(),
            })
        };
        Some(Self {
            current: issued("")?,
            next: issued("next-"),
            // The API server takes no bundle with anything else in it.
            previous_ca: text("previous-ca.crt")
                .filter(|ca| CertificateDer::from_pem_slice(ca.as_bytes()).is_ok()),
        })
    }

    /// The next one, if there is one and it is of use; a spoilt one is made anew.
    pub fn without_spoilt_next(mut self, terms: &Terms, now: Timestamp) -> Self {
        self.next = self.next.filter(|next| terms.check(next, now).is_ok());
        self
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.to_data() == other.to_data()
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
