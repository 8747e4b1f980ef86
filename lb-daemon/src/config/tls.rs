//! TLS of a check: `ssl`, `verify`, `ca_file`, `sni`, `alpn`.

use std::{
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

use toml::Spanned;

use super::{
    check_model::CheckKind,
    node,
    reader::{Field, Table},
    report::{Read, Report, Span},
    secret,
    tls_model::{Authorities, Tls},
    tls_verifier,
};

/// More than any list of authorities has.
const LONGEST_FILE: u64 = 16 << 20;
/// Longest name of a protocol (RFC 7301, section 3.1).
const LONGEST_PROTOCOL: usize = 255;

/// What one `check` table says of TLS; inherited key by key.
#[derive(Clone, Default)]
pub(super) struct TlsKeys {
    /// Kept with its place, for what is missing if it is set.
    ssl: Option<(bool, Span)>,
    verify: Option<Verify>,
    ca_file: Option<Arc<Authorities>>,
    sni: Option<String>,
    /// Kept with its place, for what does not go together with it.
    alpn: Option<Spanned<Vec<String>>>,
}

/// Whether a certificate is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verify {
    None,
    Required,
}

impl TlsKeys {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self {
            ssl: table.optional("ssl", |field| Ok((field.boolean()?, field.span()))),
            verify: table.optional("verify", |field| {
                field.choice(&[("none", Verify::None), ("required", Verify::Required)])
            }),
            ca_file: table.optional("ca_file", authorities),
            sni: table.optional("sni", sni),
            alpn: table.optional("alpn", |field| Ok(field.spanned(alpn(field)?))),
        }
    }

    /// These keys, and where they are silent the inherited ones.
    pub(super) fn or(self, inherited: &Self) -> Self {
        Self {
            ssl: self.ssl.or_else(|| inherited.ssl.clone()),
            verify: self.verify.or(inherited.verify),
            ca_file: self.ca_file.or_else(|| inherited.ca_file.clone()),
            sni: self.sni.or_else(|| inherited.sni.clone()),
            alpn: self.alpn.or_else(|| inherited.alpn.clone()),
        }
    }

    /// Whether a check speaks TLS from the beginning.
    pub(super) fn ssl(&self) -> bool {
        self.ssl.as_ref().is_some_and(|(ssl, _)| *ssl)
    }

    /// How TLS is spoken, for a check that does: of this kind, which `place` says.
    pub(super) fn resolve(
        self,
        kind: &CheckKind,
        place: Option<Span>,
        report: &Report<'_>,
    ) -> Option<Arc<Tls>> {
        if let CheckKind::Mysql(_) = kind {
            self.refuse_mysql(place, report);
            return None;
        }
        if let (CheckKind::Http(_), Some(alpn)) = (kind, &self.alpn)
            && alpn.get_ref().iter().any(|protocol| protocol == "h2")
        {
            let message = "`alpn` offers h2, which `httpchk` does not speak";
            report.error(alpn.span(), message, "write alpn = \"http/1.1\"");
        }
        let trust = match self.verify.unwrap_or(Verify::Required) {
            Verify::None => None,
            Verify::Required if self.ca_file.is_none() => {
                report.missing(
                    self.ssl.filter(|(ssl, _)| *ssl).map(|(_, span)| span).or(place),
                    "`ca_file` is missing: the backend's certificate is verified by it",
                    "name the file with the certificates of those who may issue it, as \
                     \"/etc/ssl/certs/ca-certificates.crt\"; or write verify = \"none\"",
                );
                return None;
            }
            Verify::Required => self.ca_file,
        };
        let (sni, alpn) = (self.sni, self.alpn.map(Spanned::into_inner).unwrap_or_default());
        let client = client(trust.as_deref(), sni.is_some(), &alpn);
        Some(Arc::new(Tls { trust, sni, alpn, client }))
    }

    /// Reports a MySQL check at `place` that begins with TLS. No server would understand it: MySQL's
    /// own begins after the greeting.
    fn refuse_mysql(&self, place: Option<Span>, report: &Report<'_>) {
        let ssl = self.ssl.as_ref().map(|(_, span)| span.clone());
        // Either may be inherited; what comes later in the file has most often met what was there.
        let Some(later) = ssl.into_iter().chain(place).max_by_key(|span| span.start) else {
            return;
        };
        report.error(
            later,
            "`ssl` does not go together with `mysql_check`, which speaks in the clear",
            "remove `ssl`; write ssl = false if it is inherited",
        );
    }
}

/// The library's settings.
fn client(trust: Option<&Authorities>, has_name: bool, alpn: &[String]) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier = tls_verifier::new(trust, has_name, &provider);
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has what every version needs")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect();
    // A session that is resumed shows no certificate, and one that has expired would not be noticed.
    client.resumption = Resumption::disabled();
    Arc::new(client)
}

/// Reads a file of certificates.
fn authorities(field: &Field<'_>) -> Read<Arc<Authorities>> {
    let file = node::path(field)?;
    let hint = "it is a text file with certificates: -----BEGIN CERTIFICATE----- and so on";
    let pem = read_file(&file).map_err(|error| {
        field.error(format!("the file of `{}` can't be read: {error}", field.key()), hint)
    })?;
    let mut certificates = Vec::new();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate.map_err(|error| error.to_string()).and_then(|certificate| {
            roots.add(certificate.clone()).map_err(|error| error.to_string())?;
            Ok(certificate)
        });
        match added {
            Ok(certificate) => certificates.push(certificate),
            Err(why) => {
                let message =
                    format!("a certificate in the file of `{}` can't be used: {why}", field.key());
                field.report().warning(Some(field.span()), message, hint);
            }
        }
    }
    if roots.is_empty() {
        let message = format!("there is no usable certificate in the file of `{}`", field.key());
        return Err(field.error(message, hint));
    }
    Ok(Arc::new(Authorities { file, certificates: certificates.into(), roots: Arc::new(roots) }))
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = secret::open(path)?;
    let mut pem = Vec::new();
    file.take(LONGEST_FILE).read_to_end(&mut pem)?;
    Ok(pem)
}

fn sni(field: &Field<'_>) -> Read<String> {
    let name = field.string()?;
    if matches!(ServerName::try_from(name), Ok(ServerName::DnsName(_))) {
        return Ok(name.to_owned());
    }
    let message = format!("`{}` is not a host name: {name:?}", field.key());
    Err(field.error(message, "write the name that the certificate is for: \"db.example.com\""))
}

/// `["h2", "http/1.1"]`, or `"h2,http/1.1"` as in HAProxy.
fn alpn(field: &Field<'_>) -> Read<Vec<String>> {
    let mut protocols = Vec::new();
    for item in field.items() {
        for protocol in item.string()?.split(',').map(str::trim) {
            if protocol.is_empty() || protocol.len() > LONGEST_PROTOCOL {
                let message = format!("`{}` has a protocol without a usable name", field.key());
                return Err(item.error(message, "write alpn = [\"h2\", \"http/1.1\"]"));
            }
            protocols.push(protocol.to_owned());
        }
    }
    Ok(protocols)
}
