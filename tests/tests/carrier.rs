//! What carriers do that a test bench of two telephones does not: names with SRV records, requests larger than a
//! datagram should be, digits that change their way of travelling.

use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use trunkline_tests::Appliance;
use trunkline_tests::appliance::Setup;
use trunkline_tests::hand::{Hand, sdp};
use trunkline_tests::nameserver::NameServer;

const TIMEOUT: Duration = Duration::from_secs(20);

/// An appliance whose `[sip]` section and routes are these.
fn appliance(sip: String) -> Appliance {
    Appliance::start(&Setup {
        next: String::new(),
        record: "false",
        // Tests are few, and so are the bytes.
        sip: Box::leak(sip.into_boxed_str()),
        ..Setup::to_port(0)
    })
}

fn caller(appliance: &Appliance) -> Hand {
    let hand = Hand::over_udp();
    hand.talk_to(appliance.sip_port);
    hand
}

#[test]
fn a_name_is_found_by_srv_and_the_next_server_takes_what_the_first_cannot() {
    let (first, second) = (Hand::over_udp(), Hand::over_udp());
    let names = NameServer::start(&[
        ("_sip._udp.carrier.test", 10, first.port, "localhost.test"),
        ("_sip._udp.carrier.test", 20, second.port, "localhost.test"),
    ]);
    let appliance = appliance(format!(
        "nameservers = [\"{}\"]\n[[route]]\nnext = \"sip:carrier.test\"\n",
        names.address()
    ));
    first.talk_to(appliance.sip_port);
    second.talk_to(appliance.sip_port);
    let alice = caller(&appliance);
    let mut call = alice.names("bob", appliance.sip_port);
    alice.ask(&mut call, "INVITE", "", &sdp(6000));
    let invite = first.expect("INVITE sip:bob@carrier.test");
    first.respond(&invite, "503 Service Unavailable", "", "");
    first.expect("ACK");
    let invite = second.expect("INVITE sip:bob@carrier.test");
    second.respond(&invite, "200 OK", "", &sdp(7000));
    call.learn(&alice.expect("SIP/2.0 200"));
    alice.acknowledge(&call, 1, "");
    second.expect("ACK");
    alice.ask(&mut call, "BYE", "", "");
    let bye = second.expect("BYE");
    second.respond(&bye, "200 OK", "", "");
    alice.expect("SIP/2.0 200");
}

#[test]
fn a_request_larger_than_a_datagram_goes_by_tcp_and_by_udp_where_nobody_listens() {
    let bob = Hand::over_udp();
    let appliance = appliance(format!(
        "[[route]]\nnext = \"sip:127.0.0.1:{}\"\n",
        bob.port
    ));
    bob.talk_to(appliance.sip_port);
    let alice = caller(&appliance);
    let large = format!("X-Large: {}\r\n", "x".repeat(1_300));
    let mut call = alice.names("bob", appliance.sip_port);
    alice.ask(&mut call, "INVITE", &large, &sdp(6000));
    let invite = bob.expect("INVITE");
    assert!(invite.header("Via").starts_with("SIP/2.0/UDP"));
    bob.respond(&invite, "486 Busy Here", "", "");
    bob.expect("ACK");
    alice.expect("SIP/2.0 486");
    // Now bob listens.
    let listener = TcpListener::bind(("127.0.0.1", bob.port)).unwrap();
    let mut call = alice.names("bob", appliance.sip_port);
    alice.ask(&mut call, "INVITE", &large, &sdp(6000));
    let stream = Hand::accept(&listener);
    let invite = stream.expect("INVITE");
    assert!(invite.header("Via").starts_with("SIP/2.0/TCP"));
    assert_eq!(invite.header("X-Large").len(), 1_300);
    stream.respond(&invite, "486 Busy Here", "", "");
    stream.expect("ACK");
    alice.expect("SIP/2.0 486");
}

#[test]
fn a_digit_by_info_is_heard_as_telephone_event_packets() {
    let bob = Hand::over_udp();
    let appliance = appliance(format!(
        "[[route]]\nnext = \"sip:127.0.0.1:{}\"\n",
        bob.port
    ));
    bob.talk_to(appliance.sip_port);
    let alice = caller(&appliance);
    let media = UdpSocket::bind("127.0.0.1:0").unwrap();
    let answer = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio {} RTP/AVP 0 97\r\na=rtpmap:97 telephone-event/8000\r\n",
        media.local_addr().unwrap().port()
    );
    let mut call = alice.names("bob", appliance.sip_port);
    alice.ask(&mut call, "INVITE", "", &sdp(6000));
    let invite = bob.expect("INVITE");
    bob.respond(&invite, "200 OK", "Allow: INVITE, ACK, BYE\r\n", &answer);
    call.learn(&alice.expect("SIP/2.0 200"));
    alice.acknowledge(&call, 1, "");
    bob.expect("ACK");
    let body = "Signal=5\r\nDuration=100\r\n";
    let info = alice.request(("INFO", 2), &call, "z9hG4bKinfo", "", "");
    let (head, _) = info.split_once("Content-Length").unwrap();
    let info = format!(
        "{head}Content-Type: application/dtmf-relay\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    alice.send(info.as_bytes());
    alice.expect("SIP/2.0 200");
    // Marked at first, 100 ms long in the end, which is said three times.
    let deadline = Instant::now() + TIMEOUT;
    let mut packets: Vec<Vec<u8>> = Vec::new();
    let ends = |packets: &[Vec<u8>]| packets.iter().filter(|one| one[13] & 0x80 != 0).count();
    while ends(&packets) < 3 {
        let left = deadline.saturating_duration_since(Instant::now());
        media
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))
            .unwrap();
        let mut buffer = [0; 2048];
        let length = media.recv(&mut buffer).expect("the whole digit");
        if buffer[0] >> 6 == 2 && buffer[1] & 0x7f == 97 {
            packets.push(buffer[..length].to_vec());
        }
    }
    assert_eq!(packets[0][1], 0x80 | 97);
    assert!(packets.iter().all(|one| one.len() == 16 && one[12] == 5));
    let last = packets.last().unwrap();
    assert_eq!(u16::from_be_bytes([last[14], last[15]]), 800);
    let numbers: Vec<u16> = packets
        .iter()
        .map(|one| u16::from_be_bytes([one[2], one[3]]))
        .collect();
    assert!(
        numbers
            .windows(2)
            .all(|two| two[1] == two[0].wrapping_add(1))
    );
}
