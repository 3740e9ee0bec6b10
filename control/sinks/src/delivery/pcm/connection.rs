//! A connection that sound leaves by: a WebSocket, or a Unix socket.

use futures_util::{SinkExt, StreamExt};
use std::io;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use trunkline_config::PcmTarget;

/// An open connection.
pub(super) enum Connection {
    WebSocket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Unix(UnixStream),
}

impl Connection {
    pub(super) async fn open(target: &PcmTarget) -> io::Result<Self> {
        match target {
            PcmTarget::WebSocket(url) => {
                let (stream, _) = connect_async(url).await.map_err(io::Error::other)?;
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
