//! Certificate authorities that a flag names a file of.

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::path::Path;

/// Trusts all certificates of the file, at least one; an error is a sentence for the operator that names the flag.
pub fn trust(roots: &mut RootCertStore, flag: &str, path: &Path) -> Result<(), String> {
    let shown = path.display();
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| format!("{flag} {shown}: {e}; give a readable file of PEM certificates"))?;
    if certificates.is_empty() {
        return Err(format!("{flag} {shown} holds no PEM certificate"));
    }
    certificates.into_iter().try_for_each(|certificate| {
        let added = roots.add(certificate);
        added.map_err(|e| format!("{flag} {shown} holds a certificate that cannot be used: {e}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_authorities_that_can_be_used_is_refused_by_flag_and_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        let refusal = |text: Option<&str>| {
            text.inspect(|text| std::fs::write(&file, text).unwrap());
            trust(&mut RootCertStore::empty(), "--flag", &file).unwrap_err()
        };
        for (text, why) in [
            (None, "give a readable file of PEM certificates"),
            (Some("no PEM"), "holds no PEM certificate"),
            (
                Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                "holds a certificate that cannot be used",
            ),
        ] {
            let refusal = refusal(text);
            let start = format!("--flag {}", file.display());
            assert!(refusal.starts_with(&start) && refusal.contains(why), "{refusal}");
        }
    }
}
