//! TLS between a probe and a backend.

use std::{io, net::SocketAddr};

use rustls::{AlertDescription, CertificateError, Error, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    connection::Deadline,
    finding::{Finding, Trouble, words},
};
use crate::{config::Tls, core::Reason};

/// Makes a connection that is there a TLS connection, or finds out what kept it from becoming one.
pub(super) async fn handshake(
    stream: TcpStream,
    tls: &Tls,
    target: SocketAddr,
    deadline: Deadline,
) -> Result<TlsStream<TcpStream>, Finding> {
    // An address is not sent to the backend, and none is looked for in its certificate.
    let name = tls.sni.as_deref().and_then(|name| ServerName::try_from(name.to_owned()).ok());
    let name = name.unwrap_or_else(|| ServerName::IpAddress(target.ip().into()));
    let connected = TlsConnector::from(tls.client.clone()).connect(name, stream);
    deadline.limit(connected).await.map_err(|trouble| {
        let (reason, why) = match &trouble {
            Trouble::Timeout(timeout) => {
                (Reason::L6Timeout, format!("no handshake within {timeout:?}"))
            }
            Trouble::Broken(error) => (Reason::L6Response, cause(error, tls)),
        };
        Finding::new(reason, format!("TLS with {target}: {why}"))
    })
}

/// Why a handshake failed, as a part of a sentence.
fn cause(error: &io::Error, tls: &Tls) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(fault)) => fault_of_certificate(fault, tls),
        Some(Error::InvalidMessage(_)) => "the backend does not speak TLS".to_owned(),
        Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            format!("the backend speaks none of {}", tls.alpn.join(", "))
        }
        Some(Error::AlertReceived(alert)) => format!("the backend refused: {alert:?}"),
        Some(Error::PeerIncompatible(why)) => {
            format!("the backend has no TLS in common with this host: {why:?}")
        }
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the backend closed the connection in the middle of the handshake".to_owned()
        }
        None => words(error),
    }
}

fn fault_of_certificate(fault: &CertificateError, tls: &Tls) -> String {
    let trust = tls.trust.as_ref().map(|trust| trust.file.display().to_string());
    let trust = trust.unwrap_or_default();
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate is not for {}", tls.sni.as_deref().unwrap_or_default())
        }
        CertificateError::UnknownIssuer => {
            format!("the certificate is from nobody in {trust}")
        }
        CertificateError::Other(other) => format!("the certificate is not good: {other}"),
        other => format!("the certificate is not good: {other:?}"),
    }
}
