//! What the outputs trust, and who they say they are: certificates from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::dispatch::secret::{SecretError, refuse_readable};
use crate::dispatch::settings::TlsSettings;

/// Certificates as they were read.
#[derive(Debug)]
pub struct Certificates {
    /// Who is trusted; empty means the public authorities that rustls comes with.
    pub roots: Vec<CertificateDer<'static>>,
    /// Our own certificate and its chain, and its key.
    pub own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds something else.
    #[error("cannot read {what} from `{path}`")]
    Read {
        /// What was expected there.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A key that everybody could read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A certificate without its key, or a key without its certificate.
    #[error("`certificate_file` and `key_file` belong together")]
    HalfOfAPair,
    /// rustls refuses it.
    #[error("cannot set up TLS")]
    Rustls(#[from] rustls::Error),
}

/// Reads the files of the settings. Without a `ca_file` this host's authorities are trusted.
pub fn read(settings: &TlsSettings) -> Result<Certificates, TlsError> {
    let roots = match &settings.ca_file {
        Some(path) => certificates(path)?,
        // What cannot be loaded is not trusted; without any the built-in authorities are.
        None => rustls_native_certs::load_native_certs().certs,
    };
    let own = match (&settings.certificate_file, &settings.key_file) {
        (None, None) => None,
        (Some(chain), Some(key)) => {
            let failed = |source| TlsError::Read { what: "a key", path: key.clone(), source };
            refuse_readable(key)?;
            Some((certificates(chain)?, PrivateKeyDer::from_pem_file(key).map_err(failed)?))
        }
        _ => return Err(TlsError::HalfOfAPair),
    };
    Ok(Certificates { roots, own })
}

/// A rustls client set up with them.
pub fn client_config(certificates: Certificates) -> Result<Arc<ClientConfig>, TlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates.roots);
    if store.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store);
    Ok(Arc::new(match certificates.own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    }))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Read { what: "certificates", path: path.to_owned(), source };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() {
        return Err(failed(rustls_pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}
