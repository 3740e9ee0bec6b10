//! A connection that sound leaves by: a WebSocket, or a Unix socket.

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};
use trunkline_config::PcmTarget;

/// Where connections go, and whom they believe.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) target: PcmTarget,
    /// Believes the configured authorities alone; `None` = the system's.
    tls: Option<Connector>,
}

impl Peer {
    pub(super) fn new(target: PcmTarget, authorities: Option<&str>) -> Result<Self, String> {
        let tls = authorities.map(believing).transpose()?;
        Ok(Self { target, tls })
    }
}

/// TLS that believes these authorities (PEM) alone.
fn believing(pem: &str) -> Result<Connector, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|one| roots.add(one).map_err(|error| error.to_string()));
        added.map_err(|error| format!("ca_file: {error}"))?;
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Connector::Rustls(Arc::new(config)))
}

/// An open connection.
pub(super) enum Connection {
    WebSocket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Unix(UnixStream),
}

impl Connection {
    pub(super) async fn open(peer: &Peer) -> io::Result<Self> {
        match &peer.target {
            PcmTarget::WebSocket(url) => {
                let tls = peer.tls.clone();
                let opened = connect_async_tls_with_config(&url.0, None, false, tls).await;
                let (stream, _) = opened.map_err(io::Error::other)?;
                Ok(Self::WebSocket(Box::new(stream)))
            }
            PcmTarget::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
        }
    }

    /// A JSON text: a message of its own, or a line.
    pub(super) async fn say(&mut self, text: String) -> io::Result<()> {
        match self {
            Self::WebSocket(stream) => {
                let sent = stream.send(Message::Text(text.into())).await;
                sent.map_err(io::Error::other)
            }
            Self::Unix(stream) => stream.write_all(format!("{text}\n").as_bytes()).await,
        }
    }

    /// Sound: a binary message, or bytes as they are.
    pub(super) async fn send(&mut self, pcm: Vec<u8>) -> io::Result<()> {
        match self {
            Self::WebSocket(stream) => {
                let sent = stream.send(Message::Binary(pcm.into())).await;
                sent.map_err(io::Error::other)
            }
            Self::Unix(stream) => stream.write_all(&pcm).await,
        }
    }

    /// The end of the sound. On a Unix socket it is the end of the bytes.
    pub(super) async fn stop(mut self) -> io::Result<()> {
        match &mut self {
            Self::WebSocket(stream) => {
                let stop = Message::Text(r#"{"type":"stop"}"#.into());
                stream.send(stop).await.map_err(io::Error::other)?;
                SinkExt::close(stream).await.map_err(io::Error::other)
            }
            Self::Unix(stream) => stream.shutdown().await,
        }
    }

    /// Waits for what the other side does: true = it closed in order, false = the connection broke.
    /// What it says otherwise is not for us.
    pub(super) async fn closed(&mut self) -> bool {
        match self {
            Self::WebSocket(stream) => loop {
                match stream.next().await {
                    Some(Ok(Message::Close(_))) => return true,
                    // Reading answers its pings.
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return false,
                }
            },
            // Its end shows when something is written.
            Self::Unix(_) => std::future::pending().await,
        }
    }
}
