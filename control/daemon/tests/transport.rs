//! SIP sockets: who is heard.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use trunkline_config::Config;
use trunkline_control::transport::{Incoming, TransportCounters, Transports};

#[tokio::test]
async fn a_stranger_may_answer_and_may_not_ask() {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let text = format!("[sip]\nlisten = [\"udp:{address}\"]\nallow = [\"192.0.2.0/24\"]\n");
    let config = Config::parse(&text, "test.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let (sender, mut incoming) = mpsc::channel(8);
    let counters = Arc::new(TransportCounters::default());
    let _transports = Transports::bind(&config.sip, sender, Arc::clone(&counters))
        .await
        .unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for message in ["OPTIONS sip:x SIP/2.0\r\n\r\n", "SIP/2.0 200 OK\r\n\r\n"] {
        peer.send_to(message.as_bytes(), address).await.unwrap();
    }
    let heard = tokio::time::timeout(Duration::from_secs(10), incoming.recv()).await;
    let Ok(Some(Incoming::Datagram { bytes, .. })) = heard else {
        panic!("the response is not heard");
    };
    assert!(bytes.starts_with(b"SIP/2.0 200"));
    assert_eq!(
        counters
            .not_allowed
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
}
