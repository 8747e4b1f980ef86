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
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::spawn::tests::Scratch;

/// The name that certificates are for.
pub(super) const NAME: &str = "db.example.com";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nall is well";

/// Somebody who issues certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Where its own certificate is.
    pub(super) file: PathBuf,
    _directory: Scratch,
}

impl Authority {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two with the same name would be taken for one.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority {number}"));
        let key = KeyPair::generate().unwrap();
        let directory = Scratch::new(&format!("authority-{number}"));
        let file = directory.0.join("ca.pem");
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file, _directory: directory }
    }

    /// A server with a certificate like this, which speaks these protocols, gives every client the
    /// same answer, and hangs up without taking leave.
    pub(super) async fn serve(&self, params: CertificateParams, alpn: &[&str]) -> SocketAddr {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
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
}

/// A certificate that is good for a long time.
pub(super) fn fresh() -> CertificateParams {
    CertificateParams::new(vec![NAME.to_owned()]).unwrap()
}
