//! Which certificates of backends pass, as HAProxy judges them.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::tls_model::Authorities;

/// A verifier of certificates by these authorities, or of none if there are none. They must be for
/// the name that was asked for, if one was.
pub(super) fn new(
    trust: Option<&Authorities>,
    has_name: bool,
    provider: &Arc<CryptoProvider>,
) -> Arc<dyn ServerCertVerifier> {
    let Some(authorities) = trust else {
        return Arc::new(Anybody(provider.clone()));
    };
    let roots = authorities.roots.clone();
    let chain = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .expect("there are authorities, and no revocation lists");
    Arc::new(Somebody { chain, known: authorities.certificates.clone(), has_name })
}

/// Judges a certificate by who has issued it, and by its name if that matters.
#[derive(Debug)]
struct Somebody {
    chain: Arc<WebPkiServerVerifier>,
    /// The authorities' own certificates.
    known: Arc<[CertificateDer<'static>]>,
    has_name: bool,
}

impl Somebody {
    /// Whether all that is wrong with a certificate is that it may issue others, and it is one of
    /// those that are trusted to. A backend that has signed its own certificate, as `openssl req
    /// -x509` does it, has such a one: nobody but the owner of that very key can show it. The time
    /// in which it is valid was judged before. What its key is for (the extended key usage) is not:
    /// webpki has stopped at the fault, and does not hand that extension out. So one that is for
    /// clients only passes, which OpenSSL refuses.
    fn is_an_authority(&self, fault: &Error, certificate: &CertificateDer<'_>) -> bool {
        let Error::InvalidCertificate(CertificateError::Other(other)) = fault else { return false };
        let fault = other.0.downcast_ref::<webpki::Error>();
        fault == Some(&webpki::Error::CaUsedAsEndEntity)
            && self.known.iter().any(|known| known.as_ref() == certificate.as_ref())
    }
}

impl ServerCertVerifier for Somebody {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = &self.chain;
        let verdict =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let verdict = match verdict {
            Err(fault) if self.is_an_authority(&fault, end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)
                    .map(|()| ServerCertVerified::assertion())
            }
            verdict => verdict,
        };
        match verdict {
            // The name is judged last, when all else is well.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.has_name => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Takes every certificate, also one that the library cannot read: of version 1, say. Whether the
/// backend has the key to it does not matter. Who is taken with any certificate has one of his own.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
