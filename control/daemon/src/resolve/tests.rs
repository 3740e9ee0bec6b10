//! Names are found by a name server of the tests' own, on loopback.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, NAPTR, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::*;

type Zone = HashMap<(String, RecordType), Vec<RData>>;

/// A name server, and the questions that it was asked.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(zone: &[(&str, RData)]) -> Self {
        Self::start_but(zone, &[]).await
    }

    /// One that never answers some questions: `"SRV"`, `"A host.example."`.
    async fn start_but(zone: &[(&str, RData)], silent: &'static [&str]) -> Self {
        let mut records = Zone::new();
        for (name, data) in zone {
            let key = (format!("{name}."), data.record_type());
            records.entry(key).or_default().push(data.clone());
        }
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(question) = Message::from_vec(&buffer[..length]) else {
                    continue;
                };
                let query = question.queries[0].clone();
                let name = query.name().to_ascii().to_ascii_lowercase();
                let text = format!("{} {name}", query.query_type());
                let kind = text.split(' ').next().unwrap_or_default();
                let is_silent = silent.contains(&kind) || silent.contains(&text.as_str());
                log.lock().unwrap().push(text);
                if is_silent {
                    continue;
                }
                let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
                answer.add_query(query.clone());
                let found = records.get(&(name, query.query_type()));
                for data in found.into_iter().flatten() {
                    let record = Record::from_rdata(query.name().clone(), 60, data.clone());
                    answer.add_answer(record);
                }
                if found.is_none() {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
            }
        });
        Self { address, asked }
    }

    fn resolver(&self, listen: &str) -> Resolver {
        let text = format!(
            "[sip]\nnameservers = [\"{}\"]\nlisten = [{listen}]\n",
            self.address
        );
        let config = trunkline_config::Config::parse(&text, "test.toml").unwrap();
        Resolver::new(&config.sip).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

const BOTH: &str = "\"udp:127.0.0.1:5060\", \"tcp:127.0.0.1:5060\"";

fn name(text: &str) -> Name {
    Name::from_utf8(format!("{text}.")).unwrap()
}

fn a(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(192, 0, 2, last)))
}

fn srv(priority: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, 0, port, name(target)))
}

fn naptr(order: u16, service: &str, to: &str) -> RData {
    let bytes = |text: &str| text.as_bytes().to_vec().into_boxed_slice();
    RData::NAPTR(NAPTR::new(
        order,
        10,
        bytes("s"),
        bytes(service),
        bytes(""),
        name(to),
    ))
}

fn lookup(host: &str, port: Option<u16>, transport: Option<Transport>) -> Lookup {
    Lookup {
        call: 1,
        host: host.to_owned(),
        port,
        transport,
    }
}

fn hops(found: &[Hop]) -> Vec<String> {
    let text = |hop: &Hop| format!("{}:{}", hop.transport.param_name(), hop.address);
    found.iter().map(text).collect()
}

#[tokio::test]
async fn naptr_then_srv_then_addresses_in_order_of_preference() {
    let server = Server::start(&[
        (
            "carrier.example",
            naptr(20, "SIP+D2U", "_sip._udp.carrier.example"),
        ),
        (
            "carrier.example",
            naptr(10, "SIP+D2T", "_sip._tcp.carrier.example"),
        ),
        (
            "_sip._tcp.carrier.example",
            srv(20, 5062, "b.carrier.example"),
        ),
        (
            "_sip._tcp.carrier.example",
            srv(10, 5061, "a.carrier.example"),
        ),
        (
            "_sip._udp.carrier.example",
            srv(1, 5060, "b.carrier.example"),
        ),
        ("a.carrier.example", a(1)),
        ("a.carrier.example", a(2)),
        ("b.carrier.example", a(3)),
        (
            "b.carrier.example",
            RData::AAAA(AAAA(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 3))),
        ),
    ])
    .await;
    let resolver = server.resolver(BOTH);
    let found = resolver
        .locate(&lookup("carrier.example", None, None))
        .await;
    assert_eq!(
        hops(&found),
        [
            "tcp:192.0.2.1:5061",
            "tcp:192.0.2.2:5061",
            "tcp:192.0.2.3:5062",
            "tcp:[2001:db8::3]:5062",
            "udp:192.0.2.3:5060",
            "udp:[2001:db8::3]:5060",
        ]
    );
    assert!(!server.asked().is_empty());
    // While the records may be kept, nobody is asked again.
    let again = resolver
        .locate(&lookup("carrier.example", None, None))
        .await;
    assert_eq!((again.len(), server.asked()), (found.len(), Vec::new()));
    // Without TCP of ours only UDP is left.
    let udp = server.resolver("\"udp:127.0.0.1:5060\"");
    let found = udp.locate(&lookup("carrier.example", None, None)).await;
    assert_eq!(
        hops(&found),
        ["udp:192.0.2.3:5060", "udp:[2001:db8::3]:5060"]
    );
}

#[tokio::test]
async fn a_transport_or_a_port_that_is_named_shortens_the_way() {
    let server = Server::start(&[
        ("pbx.example", naptr(10, "SIP+D2U", "_sip._udp.pbx.example")),
        ("_sip._udp.pbx.example", srv(10, 5070, "pbx.example")),
        ("_sip._tcp.pbx.example", srv(10, 5071, "pbx.example")),
        ("pbx.example", a(9)),
    ])
    .await;
    let resolver = server.resolver(BOTH);
    let tcp = Some(Transport::Tcp);
    let found = resolver.locate(&lookup("pbx.example", None, tcp)).await;
    assert_eq!(hops(&found), ["tcp:192.0.2.9:5071"]);
    assert!(!server.asked().iter().any(|one| one.starts_with("NAPTR")));
    let found = resolver
        .locate(&lookup("pbx.example", Some(5080), None))
        .await;
    assert_eq!(hops(&found), ["udp:192.0.2.9:5080"]);
    let asked = server.asked();
    assert!(!asked.iter().any(|one| one.starts_with("SRV")), "{asked:?}");
    let found = resolver
        .locate(&lookup("pbx.example", Some(5080), tcp))
        .await;
    assert_eq!(hops(&found), ["tcp:192.0.2.9:5080"]);
}

#[tokio::test]
async fn without_naptr_srv_of_each_transport_and_without_those_the_address() {
    let server = Server::start(&[
        ("_sip._tcp.only.example", srv(10, 5071, "host.example")),
        ("host.example", a(4)),
        ("plain.example", a(5)),
    ])
    .await;
    let resolver = server.resolver(BOTH);
    let found = resolver.locate(&lookup("only.example", None, None)).await;
    assert_eq!(hops(&found), ["tcp:192.0.2.4:5071"]);
    let found = resolver.locate(&lookup("plain.example", None, None)).await;
    assert_eq!(hops(&found), ["udp:192.0.2.5:5060"]);
    server.asked();
    let found = resolver.locate(&lookup("nobody.example", None, None)).await;
    assert!(found.is_empty());
    assert!(!server.asked().is_empty());
    // That nothing is there is remembered too.
    assert!(
        resolver
            .locate(&lookup("nobody.example", None, None))
            .await
            .is_empty()
    );
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn localhost_is_known_without_a_name_server() {
    let server = Server::start(&[]).await;
    let resolver = server.resolver(BOTH);
    let found = resolver.locate(&lookup("localhost", None, None)).await;
    assert_eq!(hops(&found)[0], "udp:127.0.0.1:5060");
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_silent_name_server_leads_nowhere_in_bounded_time() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        address: silent.local_addr().unwrap(),
        asked: Arc::default(),
    };
    let resolver = server.resolver(BOTH);
    let asked = lookup("a.example", None, None);
    let found = tokio::time::timeout(Duration::from_secs(60), resolver.locate(&asked));
    assert!(found.await.expect("it gives up by itself").is_empty());
}

#[tokio::test]
async fn a_name_server_that_answers_addresses_only_is_enough() {
    let zone = [("plain.example", a(5))];
    let server = Server::start_but(&zone, &["NAPTR", "SRV", "AAAA"]).await;
    let resolver = server.resolver(BOTH);
    for _ in 0..2 {
        let found = resolver.locate(&lookup("plain.example", None, None)).await;
        assert_eq!(hops(&found), ["udp:192.0.2.5:5060"]);
    }
}

#[tokio::test]
async fn a_place_that_cannot_be_found_out_about_does_not_take_the_others_along() {
    let zone = [
        ("_sip._udp.two.example", srv(10, 5061, "lost.example")),
        ("_sip._udp.two.example", srv(20, 5062, "found.example")),
        ("found.example", a(6)),
    ];
    let silent = &["A lost.example.", "AAAA lost.example."];
    let server = Server::start_but(&zone, silent).await;
    let found = server
        .resolver(BOTH)
        .locate(&lookup("two.example", None, None))
        .await;
    assert_eq!(hops(&found), ["udp:192.0.2.6:5062"]);
}
