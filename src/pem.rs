//! Certificate authorities that a flag names a file of.

use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::path::Path;

/// All certificates of the file, at least one; an error is a sentence for the operator that names the flag.
pub fn authorities(flag: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| format!("{flag} {shown}: {e}; give a readable file of PEM certificates"))?;
    match certificates.is_empty() {
        true => Err(format!("{flag} {shown} holds no PEM certificate")),
        false => Ok(certificates),
    }
}
