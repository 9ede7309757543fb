//! TLS on both legs: certificates chosen by SNI for clients, verification of upstreams, and the upgrade's errors.
//!
//! rustls with one provider (aws-lc-rs), TLS 1.2 and 1.3. Everything is built once from the configuration; a
//! session only uses it.

use std::{io, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What is told about an established TLS session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// Such as `TLSv1.3`.
    pub version: &'static str,
    /// Such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
}

impl TlsFacts {
    pub(super) fn of(session: &CommonState) -> Self {
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLS",
        };
        let cipher = session.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
        Self { version, cipher: cipher.unwrap_or_default() }
    }
}

/// Why TLS did not come about.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The peer sent octets in clear that were to be read under TLS (command or response injection).
    #[error("the peer sent data in clear behind the TLS go-ahead")]
    Buffered,
    /// TLS inside TLS was asked for.
    #[error("the connection is encrypted already")]
    AlreadyEncrypted,
    /// The configured server name is neither a host name nor an address.
    #[error("{0:?} is not a name a certificate could have")]
    Name(String),
    /// The handshake failed.
    #[error("TLS handshake failed: {0}")]
    Handshake(io::Error),
}

/// The server's side of TLS: what a listener needs.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// TLS with these certificates. A client that asks by ALPN (RFC 7301) for none of the protocols `alpn` gets no TLS:
    /// it was led here by somebody who wants it to take our words for another protocol's. One without ALPN is served.
    pub fn new(certificates: Certificates, alpn: &[&str]) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self { config: Arc::new(config) })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

/// A listener's certificates, chosen by the name the client asks for and by the signatures it can verify; without a
/// certificate for its name it gets the first it can verify.
#[derive(Debug, Default)]
pub struct Certificates {
    entries: Vec<(Vec<String>, Arc<CertifiedKey>)>,
    earliest_end: Option<i64>,
}

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFault {
    /// The PEM file cannot be read.
    #[error("{0}")]
    Pem(rustls_pki_types::pem::Error),
    /// The certificate file holds no certificate.
    #[error("no certificate in it")]
    Empty,
    /// The key does not fit the certificate, or neither can be used.
    #[error("{0}")]
    Unusable(rustls::Error),
}

impl Certificates {
    /// Adds the chain in the PEM file `cert` with its key in the PEM file `key`.
    pub fn add(&mut self, cert: &Path, key: &Path) -> Result<(), CertificateFault> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).map_err(CertificateFault::Pem)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(CertificateFault::Pem)?;
        let leaf = chain.first().ok_or(CertificateFault::Empty)?;
        let (names, ends) = names_and_end(leaf);
        let certified =
            CertifiedKey::from_der(chain, key, &provider()).map_err(CertificateFault::Unusable)?;
        self.earliest_end = match (self.earliest_end, ends) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.entries.push((names, Arc::new(certified)));
        Ok(())
    }

    /// When the first of them expires, in seconds since 1970.
    pub fn earliest_end(&self) -> Option<i64> {
        self.earliest_end
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().map(str::to_ascii_lowercase);
        let fits =
            |names: &[String]| asked.as_ref().is_some_and(|name| names.iter().any(|n| covers(n, name)));
        let verifiable = || {
            let entries = self.entries.iter();
            entries.filter(|(_, key)| key.key.choose_scheme(hello.signature_schemes()).is_some())
        };
        let entry = verifiable().find(|(names, _)| fits(names)).or_else(|| verifiable().next());
        entry.map(|(_, key)| Arc::clone(key))
    }
}

/// Whether a certificate's name covers a host name; a wildcard stands for one label (RFC 6125 section 6.4.3).
fn covers(certificate: &str, host: &str) -> bool {
    match certificate.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => certificate == host,
    }
}

fn names_and_end(leaf: &CertificateDer<'_>) -> (Vec<String>, Option<i64>) {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else { return (Vec::new(), None) };
    let names = match parsed.subject_alternative_name() {
        Ok(Some(extension)) => extension
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    (names, Some(parsed.validity().not_after.timestamp()))
}

/// How far an upstream's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Chain and name.
    #[default]
    Full,
    /// The chain, whatever the name.
    Ca,
    /// Nothing: encryption against listeners, not against impostors.
    None,
}

/// The client's side of TLS: what an upstream needs.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    name: Option<String>,
}

/// Why the roots of trust cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RootsFault {
    /// The file with the authorities' certificates cannot be read.
    #[error("{0}")]
    Pem(rustls_pki_types::pem::Error),
    /// There is nothing to trust.
    #[error("no usable certificate authority found")]
    Empty,
    /// rustls refuses the set.
    #[error("{0}")]
    Tls(rustls::Error),
}

impl ClientTls {
    /// TLS that trusts the authorities in the PEM file `ca`, or the system's where none is given; `name` is the
    /// name asked for and checked, where it is not the host's.
    pub fn new(verify: Verify, ca: Option<&Path>, name: Option<String>) -> Result<Self, RootsFault> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(RootsFault::Tls)?;
        let config = match verify {
            Verify::Full => builder.with_root_certificates(roots(ca)?).with_no_client_auth(),
            Verify::Ca | Verify::None => {
                let inner = match verify {
                    Verify::Ca => Some(
                        WebPkiServerVerifier::builder_with_provider(Arc::new(roots(ca)?), provider())
                            .build()
                            .map_err(|_| RootsFault::Empty)?,
                    ),
                    _ => None,
                };
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(Lenient { inner }))
                    .with_no_client_auth()
            }
        };
        Ok(Self { config: Arc::new(config), name })
    }

    pub(super) fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.config))
    }

    pub(super) fn server_name(&self, host: &str) -> Result<ServerName<'static>, UpgradeError> {
        let name = self.name.as_deref().unwrap_or(host).trim_matches(['[', ']']);
        ServerName::try_from(name.to_owned()).map_err(|_| UpgradeError::Name(name.to_owned()))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, RootsFault> {
    let mut store = RootCertStore::empty();
    match ca {
        Some(path) => {
            let certificates: Vec<_> =
                CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(RootsFault::Pem)?;
            store.add_parsable_certificates(certificates);
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() { Err(RootsFault::Empty) } else { Ok(store) }
}

/// A verifier that lets pass what the operator said need not be checked: the name, or everything.
#[derive(Debug)]
struct Lenient {
    inner: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is verified before the name, so this error says that the chain is good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (certificate, host, covered) in [
            ("mail.example.org", "mail.example.org", true),
            ("mail.example.org", "pop.example.org", false),
            ("*.example.org", "mail.example.org", true),
            ("*.example.org", "a.mail.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
        ] {
            assert_eq!(covers(certificate, host), covered, "{certificate} {host}");
        }
    }
}
