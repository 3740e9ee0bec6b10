//! SIP sockets: who is heard.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use trunkline_config::Config;
use trunkline_control::transport::{Incoming, TransportCounters, Transports};
use trunkline_sip::transaction::{ClientTx, Transmit, Transport, TxId};

fn free_address() -> std::net::SocketAddr {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}

#[tokio::test]
async fn a_stranger_may_answer_and_may_not_ask() {
    let address = free_address();
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

/// A listener whose queue of connections is full: the kernel drops further SYNs, as a firewall would.
async fn deaf_listener() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    let patience = Duration::from_millis(300);
    while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    (listener, waiting)
}

#[tokio::test]
async fn what_can_leave_by_udp_waits_less_for_a_connection_than_what_cannot() {
    let (listener, _waiting) = deaf_listener().await;
    let remote = listener.local_addr().unwrap();
    let text = format!("[sip]\nlisten = [\"udp:{}\"]\n", free_address());
    let config = Config::parse(&text, "test.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let (sender, mut incoming) = mpsc::channel(8);
    let transports = Transports::bind(&config.sip, sender, Arc::default())
        .await
        .unwrap();
    for (number, has_fallback) in [(1, false), (2, true)] {
        transports.send(Transmit {
            transport: Transport::Tcp,
            flow: None,
            remote,
            bytes: Arc::from(&b"INVITE"[..]),
            origin: Some(TxId::Client(ClientTx(number))),
            has_fallback,
        });
    }
    for expected in [2, 1] {
        let heard = tokio::time::timeout(Duration::from_secs(60), incoming.recv()).await;
        let Ok(Some(Incoming::SendFailed { origin })) = heard else {
            panic!("a failure");
        };
        assert_eq!(origin, TxId::Client(ClientTx(expected)));
    }
}

/// Waits for the next thing that arrives.
async fn next(incoming: &mut mpsc::Receiver<Incoming>) -> Incoming {
    let heard = tokio::time::timeout(Duration::from_secs(60), incoming.recv()).await;
    heard.expect("in time").expect("something")
}

#[tokio::test]
async fn who_says_nothing_more_still_gets_the_answers_that_are_owed() {
    let address = free_address();
    let text = format!("[sip]\nlisten = [\"tcp:{address}\"]\n");
    let config = Config::parse(&text, "test.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let (sender, mut incoming) = mpsc::channel(8);
    let transports = Transports::bind(&config.sip, sender, Arc::default())
        .await
        .unwrap();
    let mut peer = TcpStream::connect(address).await.unwrap();
    let request = "OPTIONS sip:x@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bKa\r\n\
                   From: <sip:a@127.0.0.1>;tag=1\r\nTo: <sip:x@127.0.0.1>\r\nCall-ID: half\r\n\
                   CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n";
    peer.write_all(request.as_bytes()).await.unwrap();
    peer.shutdown().await.unwrap();
    let Incoming::Message { path, .. } = next(&mut incoming).await else {
        panic!("the request")
    };
    let Incoming::FlowClosed { .. } = next(&mut incoming).await else {
        panic!("nothing can be asked there any more")
    };
    let answers = ["SIP/2.0 100 Trying\r\n\r\n", "SIP/2.0 200 OK\r\n\r\n"];
    for answer in answers {
        transports.send(Transmit {
            transport: Transport::Tcp,
            flow: Some(path.flow),
            remote: path.source,
            bytes: Arc::from(answer.as_bytes()),
            origin: None,
            has_fallback: false,
        });
    }
    // With the last answer that is owed it is closed.
    let mut heard = String::new();
    let read = peer.read_to_string(&mut heard);
    let read = tokio::time::timeout(Duration::from_secs(60), read).await;
    read.expect("it is closed").unwrap();
    assert_eq!(heard, answers.concat());

    // Nothing is owed to who asks nothing.
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.shutdown().await.unwrap();
    let read = silent.read_to_string(&mut heard);
    let read = tokio::time::timeout(Duration::from_secs(60), read).await;
    assert_eq!(read.expect("it is closed").unwrap(), 0);
}
