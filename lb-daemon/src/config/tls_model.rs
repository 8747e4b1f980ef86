//! The validated model of TLS in health checks.

use std::{fmt, path::PathBuf, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

/// How TLS is spoken with a backend.
#[derive(Clone)]
pub struct Tls {
    /// Whom the backend's certificate must be from; nothing if any certificate will do.
    pub trust: Option<Arc<Authorities>>,
    /// The name that is asked for, and that the certificate must be for; none if neither matters.
    pub sni: Option<String>,
    /// Protocols to choose from, as in `ALPN`; empty if that is not spoken of.
    pub alpn: Vec<String>,
    /// All of this as the library wants it.
    pub client: Arc<ClientConfig>,
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        // The rest follows from these.
        (&self.trust, &self.sni, &self.alpn) == (&other.trust, &other.sni, &other.alpn)
    }
}

impl Eq for Tls {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("trust", &self.trust.as_ref().map(|authorities| &authorities.file))
            .field("sni", &self.sni)
            .field("alpn", &self.alpn)
            .finish_non_exhaustive()
    }
}

/// Certificates of those who are trusted to issue others.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// The file that they were read from.
    pub file: PathBuf,
    /// They themselves; at least one.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// The same, as what others are verified by.
    pub roots: Arc<RootCertStore>,
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file && self.certificates == other.certificates
    }
}

impl Eq for Authorities {}
