//! Reads certificate authorities from a file that a flag names.

use crate::start_error::StartError;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{error::Error, path::Path};

/// Adds all certificates of the file to `roots`. The file must contain at least one. The error names the flag.
pub fn add_root_certificates(roots: &mut RootCertStore, flag: &str, path: &Path) -> Result<(), StartError> {
    let source = format!("{flag} {}", path.display());
    let text = std::fs::read(path).map_err(|e| unreadable(&source, &e))?;
    add_certificates(roots, &source, &text)
}

/// Adds all certificates in `text`, which must contain at least one. The error names the source.
pub fn add_certificates(roots: &mut RootCertStore, source: &str, text: &[u8]) -> Result<(), StartError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let certificates = certificates.map_err(|e| unreadable(source, &e))?;
    if certificates.is_empty() {
        return Err(StartError::Flag(format!("{source} contains no PEM certificate")));
    }
    certificates.into_iter().try_for_each(|certificate| {
        let added = roots.add(certificate);
        added.map_err(StartError::failed(format!(
            "{source} contains a certificate that cannot be used"
        )))
    })
}

fn unreadable(source: &str, error: &dyn Error) -> StartError {
    StartError::Flag(format!(
        "{source}: {error}; set it to a readable file of PEM certificates"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unusable_file_is_refused_with_the_flag_and_the_file_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        let error = |text: Option<&str>| {
            text.inspect(|text| std::fs::write(&file, text).unwrap());
            add_root_certificates(&mut RootCertStore::empty(), "--flag", &file)
                .unwrap_err()
                .to_string()
        };
        for (text, why) in [
            (None, "set it to a readable file of PEM certificates"),
            (Some("no PEM"), "contains no PEM certificate"),
            (
                Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                "contains a certificate that cannot be used",
            ),
        ] {
            let error = error(text);
            let start = format!("--flag {}", file.display());
            assert!(error.starts_with(&start) && error.contains(why), "{error}");
        }
    }
}
