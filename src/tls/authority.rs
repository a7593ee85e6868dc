//! The secret paths and, where nobody else makes them, the webhook's own certificate authorities, each for one serving
//! certificate: what is kept, and what is to be done next. No clock, no API server.
//!
//! A rotation loses no request: the next authority is published beside the current one, and the next path is accepted;
//! when API servers know both authorities and replicas both paths, the next certificate is served and the next path
//! published; when that is known cluster_wide, the authority and the path of before are forgotten.

use super::{Pair, SecretPath};
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

/// What is replaced as one.
#[derive(Clone)]
pub struct Issued {
    path: SecretPath,
    /// None where the certificate is in files that somebody else makes.
    signed: Option<Signed>,
}

/// An authority's certificate, and the one pair that it has signed. The authority's key is not kept by anybody.
#[derive(Clone)]
struct Signed {
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
    /// Path that was published before.
    previous_path: Option<SecretPath>,
}

/// For whom certificates are made, and for how long.
#[derive(Clone, Debug)]
pub struct Terms {
    /// DNS names and IP addresses by which the API server calls; None where the certificate is in files, so that only a
    /// path is made.
    names: Option<Vec<String>>,
    /// From making to end.
    lifetime: Duration,
}

/// What is to be done with what is kept.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The next certificate and path are to be made and told.
    Prepare,
    /// The next ones are known: the certificate is to be served, the path to be published.
    Switch,
    /// Those of before are used no more: authority and path are to be forgotten.
    Forget,
    /// Nothing before this.
    Wait(Duration),
}

/// Key of the path in the Secret.
const PATH: &str = "path";
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
        Ok(Self {
            names: Some(names),
            lifetime,
        })
    }

    /// Those of a webhook whose certificate is in files: its path is made, and lasts until the Secret is deleted.
    pub fn of_files(lifetime: Duration) -> Self {
        Self {
            names: None,
            lifetime,
        }
    }

    /// Makes a path and, unless the certificate is in files, an authority and a pair signed by it. Where the pair that is
    /// served lacks a name, its own names are kept beside the present ones: other replicas may have been told of those.
    pub fn issue(&self, served: Option<&Pair>, now: Timestamp) -> Result<Issued, String> {
        let path = SecretPath::generate().map_err(|e| format!("a secret path cannot be made: {e}"))?;
        let signed = self.names.clone().map(|mut names| {
            if let Some(served) = served.filter(|served| !self.are_served_by(served)) {
                let others = served.names.iter().filter(|name| !contains(&names, name));
                let others: Vec<_> = others.cloned().collect();
                names.extend(others);
            }
            self.sign(&names, now)
        });
        let signed = signed.transpose();
        Ok(Issued {
            path,
            signed: signed.map_err(|e| format!("a certificate cannot be made: {e}"))?,
        })
    }

    fn sign(&self, names: &[String], now: Timestamp) -> Result<Signed, rcgen::Error> {
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
        Ok(Signed {
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

    /// Whether a pair is for all present names.
    fn are_served_by(&self, pair: &Pair) -> bool {
        let mut names = self.names.iter().flatten();
        names.all(|name| contains(&pair.names, name))
    }

    /// The pair to serve, none where it is in files. An error where it does not serve its names now, as who trusts its
    /// authority alone would see it. These may be the names of before: such a pair is replaced as one that ends, by a
    /// rotation, for replicas that know different names must not replace each other's.
    pub fn check(&self, issued: &Issued, now: Timestamp) -> Result<Option<Pair>, String> {
        match (&self.names, &issued.signed) {
            (None, _) => Ok(None),
            (Some(_), None) => Err("there is no certificate".to_owned()),
            (Some(_), Some(signed)) => signed.check(now).map(Some),
        }
    }

    /// `fresh`, with each half of it that is in the Secret's data already and of use: a certificate from before there were
    /// paths, or the path of a webhook whose certificate was in files.
    pub fn complete<'a>(
        &self,
        fresh: Issued,
        get: impl Fn(&str) -> Option<&'a [u8]>,
        now: Timestamp,
    ) -> Issued {
        let signed = self.names.as_ref().and_then(|_| {
            let found = Signed::from_data("", &get)?;
            found.check(now).ok().map(|_| found)
        });
        Issued {
            path: get(PATH).and_then(SecretPath::parse).unwrap_or(fresh.path),
            signed: signed.or(fresh.signed),
        }
    }
}

// === impl Signed ===

impl Signed {
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

    fn check(&self, now: Timestamp) -> Result<Pair, String> {
        let pair = Pair::parse(self.chain.as_bytes(), self.key.expose_secret().as_bytes())?;
        let mut roots = RootCertStore::empty();
        let ca =
            CertificateDer::from_pem_slice(self.ca.as_bytes()).map_err(|e| format!("the authority: {e}"))?;
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
    // An IPv6 address has several spellings.
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

// === impl Kept ===

impl Kept {
    /// A beginning.
    pub fn new(current: Issued) -> Self {
        Self {
            current,
            next: None,
            previous_ca: None,
            previous_path: None,
        }
    }

    /// The authorities that API servers are to trust, in PEM; None where they are not ours.
    pub fn bundle(&self) -> Option<String> {
        let ca = |issued: &Issued| issued.signed.as_ref().map(|signed| signed.ca.clone());
        let current = ca(&self.current)?;
        let all = [
            self.previous_ca.clone(),
            Some(current),
            self.next.as_ref().and_then(ca),
        ];
        Some(all.into_iter().flatten().collect())
    }

    /// The path that API servers are to ask for.
    pub fn published_path(&self) -> &SecretPath {
        &self.current.path
    }

    /// The paths that are served: that which is published, that which will be, and that which some API server may still
    /// know.
    pub fn accepted_paths(&self) -> Vec<SecretPath> {
        let next = self.next.as_ref().map(|next| &next.path);
        let all = [Some(&self.current.path), next, self.previous_path.as_ref()];
        all.into_iter().flatten().cloned().collect()
    }

    /// The next step, `known` long after everybody was told of the present state. `served` is None where it is in files.
    pub fn step(&self, terms: &Terms, served: Option<&Pair>, known: Duration, now: Timestamp) -> Step {
        let hold = terms.hold();
        let previous = self.previous_ca.is_some() || self.previous_path.is_some();
        match (&self.next, previous) {
            (Some(_), _) if known >= hold => Step::Switch,
            (None, true) if known >= hold => Step::Forget,
            (None, false) => {
                let Some(served) = served else {
                    return Step::Wait(Duration::MAX);
                };
                if !terms.are_served_by(served) {
                    return Step::Prepare;
                }
                let third = SignedDuration::try_from(terms.lifetime / 3).unwrap_or(SignedDuration::MAX);
                let left = served.ends.duration_since(now) - third;
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
            self.previous_ca = before.signed.map(|signed| signed.ca);
            self.previous_path = Some(before.path);
        }
        self
    }

    /// With the one of before forgotten.
    pub fn forgotten(mut self) -> Self {
        self.previous_ca = None;
        self.previous_path = None;
        self
    }

    /// As a Secret's data.
    pub fn to_data(&self) -> BTreeMap<String, Vec<u8>> {
        let mut data = BTreeMap::new();
        let mut put = |key: String, value: &[u8]| data.insert(key, value.to_vec());
        for (prefix, issued) in [("", Some(&self.current)), ("next-", self.next.as_ref())] {
            let Some(Issued { path, signed }) = issued else {
                continue;
            };
            put(format!("{prefix}{PATH}"), path.as_bytes());
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
            put(format!("previous-{PATH}"), previous.as_bytes());
        }
        data
    }

    /// From a Secret's data, as far as it is text; whether the certificates can be served is for [`Terms::check`].
    pub fn from_data<'a>(terms: &Terms, get: impl Fn(&str) -> Option<&'a [u8]>) -> Option<Self> {
        let path = |prefix: &str| get(&format!("{prefix}{PATH}")).and_then(SecretPath::parse);
        let issued = |prefix: &str| {
            let signed = match &terms.names {
                Some(_) => Some(Signed::from_data(prefix, &get)?),
                None => None,
            };
            Some(Issued {
                path: path(prefix)?,
                signed,
            })
        };
        // The API server takes no bundle with anything else in it.
        let previous_ca = get("previous-ca.crt").filter(|ca| CertificateDer::from_pem_slice(ca).is_ok());
        let previous_ca = previous_ca.and_then(|ca| String::from_utf8(ca.to_vec()).ok());
        Some(Self {
            current: issued("")?,
            next: issued("next-"),
            previous_ca: previous_ca.filter(|_| terms.names.is_some()),
            previous_path: path("previous-"),
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
