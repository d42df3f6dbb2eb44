//! Opens byte streams, plain and TLS, for TURN over TCP and for WebSockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::report::Problem;

/// A connected stream of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How streams are opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialer {
    /// For the connection and again for the handshake.
    pub(super) patience: Duration,
    /// Take any certificate.
    pub(super) insecure: bool,
}

impl Dialer {
    /// A TCP connection.
    pub(super) async fn tcp(self, address: SocketAddr) -> Result<TcpStream, Problem> {
        let connected = timeout(self.patience, TcpStream::connect(address)).await;
        let stream = connected.map_err(|_| {
            Problem::new(
                format!("no answer on TCP {address}"),
                format!("is the server running, and does a firewall drop TCP {}?", address.port()),
            )
        })?;
        let stream = stream.map_err(|error| {
            Problem::new(
                format!("TCP {address}: {error}"),
                "is the server running, and does it listen on this address and port?",
            )
        })?;
        // Only a matter of speed.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// A TLS connection to `host`, whose certificate is checked unless told not to.
    pub(super) async fn tls(self, address: SocketAddr, host: &str) -> Result<Box<dyn Stream>, Problem> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_| Problem::new(format!("{host:?} is no host name"), "correct the URL"))?;
        let stream = self.tcp(address).await?;
        let handshake = TlsConnector::from(self.config()).connect(name, stream);
        match timeout(self.patience, handshake).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(Problem::new(
                format!("TLS handshake with {host}: {error}"),
                "is the certificate valid for this name? --insecure accepts a self-signed one",
            )),
            Err(_) => Err(Problem::new(
                format!("no TLS handshake with {address}"),
                "does this port speak TLS, and is the server loaded?",
            )),
        }
    }

    fn config(self) -> Arc<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions");
        let config = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        } else {
            let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect::<RootCertStore>();
            builder.with_root_certificates(roots)
        };
        Arc::new(config.with_no_client_auth())
    }
}

/// Takes any certificate, but still proves that the other side holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
