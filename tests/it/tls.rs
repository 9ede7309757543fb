//! TLS on both legs: which certificate is shown, to whom, and for which name a server's is checked.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gatepost::{
    net::{Certificates, ClientTls, Dial, ServerTls, Stream, Upstream, UpstreamTls, Verify},
    session::Protocol,
    telemetry::Metrics,
};
use tempfile::TempDir;
use tokio::io::duplex;

use crate::kit::SelfSigned;

const PATIENCE: Duration = Duration::from_secs(20);

/// The second server of an upstream is checked for its own name, not for that of the first.
#[tokio::test]
async fn starttls_checks_the_name_of_the_server_that_answered() {
    let folder = TempDir::new().unwrap();
    let signed = rcgen::generate_simple_self_signed(vec!["two.example.org".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, signed.cert.pem()).unwrap();
    std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    let mut certificates = Certificates::default();
    certificates.add(&cert, &key).unwrap();
    let server = ServerTls::new(certificates, Protocol::Smtp.alpn()).unwrap();
    let calls = AtomicUsize::new(0);
    let (near, far) = duplex(64 * 1024);
    let pipe = std::sync::Mutex::new(Some(near));
    let open = move || match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Err(io::ErrorKind::ConnectionRefused.into()),
        _ => Ok(Stream::new(pipe.lock().unwrap().take().unwrap())),
    };
    let upstream = Upstream {
        name: "real".into(),
        servers: vec!["one.example.org:25".into(), "two.example.org:25".into()],
        tls: UpstreamTls::StartTls(ClientTls::new(Verify::Full, Some(&cert), None).unwrap()),
        dial: Dial::Pipe(Arc::new(open)),
        connect_timeout: PATIENCE,
        metrics: Arc::new(Metrics::new()),
    };
    let stream = upstream.connect().await.unwrap();
    let (ours, _theirs) = tokio::join!(upstream.upgrade(stream), Stream::new(far).accept_tls(&server));
    if let Err(error) = ours {
        panic!("{error}");
    }
}

/// Believes everything, and understands RSA alone where it is told so: an old client.
#[derive(Debug)]
struct Gullible {
    schemes: Vec<rustls::SignatureScheme>,
}

impl rustls::client::danger::ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.schemes.clone()
    }
}

/// Whether a client with these signature schemes and these ALPN names gets its TLS.
async fn shakes_hands(server: &ServerTls, schemes: &[rustls::SignatureScheme], alpn: &[&[u8]]) -> bool {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible { schemes: schemes.to_vec() }))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let (near, far) = duplex(64 * 1024);
    let name = rustls_pki_types::ServerName::try_from("mail.example.org").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let (client, server) = tokio::join!(connector.connect(name, near), Stream::new(far).accept_tls(server));
    client.is_ok() && server.is_ok()
}

/// ALPACA (CVE-2021-3618): a browser that asks for HTTP is refused in the handshake; a client without ALPN is not.
#[tokio::test]
async fn a_client_that_asks_for_http_gets_no_tls() {
    let server = SelfSigned::shared().server(Protocol::Smtp);
    let any = [rustls::SignatureScheme::ECDSA_NISTP256_SHA256];
    assert!(shakes_hands(&server, &any, &[]).await);
    assert!(!shakes_hands(&server, &any, &[b"h2", b"http/1.1"]).await, "ALPN http/1.1 was let in");
}

/// Two certificates for one name, ECDSA and RSA, as every guide for mail servers has it: each client gets one it can use.
#[tokio::test]
async fn the_certificate_fits_what_the_client_can_verify() {
    let folder = TempDir::new().unwrap();
    let mut certificates = Certificates::default();
    for (file, algorithm) in [("ecdsa", &rcgen::PKCS_ECDSA_P256_SHA256), ("rsa", &rcgen::PKCS_RSA_SHA256)] {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(vec!["mail.example.org".to_owned()]).unwrap();
        let (cert, key) =
            (folder.path().join(format!("{file}.pem")), folder.path().join(format!("{file}.key")));
        std::fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        certificates.add(&cert, &key).unwrap();
    }
    let server = ServerTls::new(certificates, Protocol::Smtp.alpn()).unwrap();
    assert!(shakes_hands(&server, &[rustls::SignatureScheme::ECDSA_NISTP256_SHA256], &[]).await);
    let rsa = [rustls::SignatureScheme::RSA_PSS_SHA256, rustls::SignatureScheme::RSA_PKCS1_SHA256];
    assert!(shakes_hands(&server, &rsa, &[]).await, "a client that knows RSA alone gets no TLS");
}
