//! Servers that speak TLS, and who issues their certificates.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::der;
use crate::spawn::tests::Scratch;

/// The name that certificates are for.
pub(super) const NAME: &str = "db.example.com";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nall is well";

/// Somebody who issues certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own, which it has signed itself.
    certificate: CertificateDer<'static>,
    /// Where that is.
    pub(super) file: PathBuf,
    _directory: Scratch,
}

impl Authority {
    pub(super) fn new() -> Self {
        Self::with(CertificateParams::default())
    }

    /// One whose own certificate is like this.
    pub(super) fn with(mut params: CertificateParams) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two with the same name would be taken for one.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority {number}"));
        let key = KeyPair::generate().unwrap();
        let directory = Scratch::new(&format!("authority-{number}"));
        let file = directory.0.join("ca.pem");
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&file, certificate.pem()).unwrap();
        let certificate = certificate.der().clone();
        Self { issuer: Issuer::new(params, key), certificate, file, _directory: directory }
    }

    /// A server with a certificate like this, which speaks these protocols, gives every client the
    /// same answer, and hangs up without taking leave.
    pub(super) async fn serve(&self, params: CertificateParams, alpn: &[&str]) -> SocketAddr {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        serve(certificate, &key, alpn).await
    }

    /// A server that shows this authority's own certificate.
    pub(super) async fn serve_itself(&self) -> SocketAddr {
        serve(self.certificate.clone(), self.issuer.key(), &[]).await
    }

    /// A server whose certificate is of version 1.
    pub(super) async fn serve_version_1(&self) -> SocketAddr {
        let key = KeyPair::generate().unwrap();
        let certificate = fresh().signed_by(&key, &self.issuer).unwrap();
        serve(der::as_version_1(certificate.der()).into(), &key, &[]).await
    }
}

async fn serve(certificate: CertificateDer<'static>, key: &KeyPair, alpn: &[&str]) -> SocketAddr {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = ring::sign::any_supported_type(&key).unwrap();
    // Whatever the certificate is, it is shown.
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4];
            if stream.read_exact(&mut request).await.is_ok() {
                let _ = stream.write_all(ANSWER).await;
                let _ = stream.flush().await;
            }
        }
    });
    address
}

/// A certificate that is good for a long time.
pub(super) fn fresh() -> CertificateParams {
    CertificateParams::new(vec![NAME.to_owned()]).unwrap()
}
