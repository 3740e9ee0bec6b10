//! A call of one appliance recorded by another, with Kamailio between the two and tshark as the referee of
//! what the recorder was sent.

use std::time::Duration;

use trunkline_tests::api::check_receipt;
use trunkline_tests::appliance::Setup;
use trunkline_tests::capture::{self, Capture};
use trunkline_tests::kamailio::Proxy;
use trunkline_tests::party::Party;
use trunkline_tests::pcap::RtpPacket;
use trunkline_tests::ports::free_port;
use trunkline_tests::process::eventually;
use trunkline_tests::scenario::Scenario;
use trunkline_tests::sipp::{Sipp, SippSetup};
use trunkline_tests::siprec::answered_ports;
use trunkline_tests::sound::{assert_contains, decode};
use trunkline_tests::{Appliance, installed, skip};

/// The port of the first m-line that a SIPp was offered.
fn offered_port(sipp: &Sipp, own: u16) -> u16 {
    eventually("an offer", Duration::from_secs(10), || {
        let trace = sipp.trace();
        let mut ports = trace.lines().filter_map(|line| {
            let port = line.strip_prefix("m=audio ")?.split(' ').next()?;
            port.parse::<u16>().ok()
        });
        ports.find(|port| *port != own)
    })
}

/// The packets to whichever port got this party's words: all of one piece of what it said.
fn copies<'a>(wire: &'a [RtpPacket], said: &[RtpPacket]) -> Vec<&'a RtpPacket> {
    let of = |packet: &&RtpPacket| said.iter().any(|one| one.payload == packet.payload);
    let copies: Vec<&RtpPacket> = wire.iter().filter(of).collect();
    assert!(copies.len() > 50, "{} packets on the wire", copies.len());
    let port = copies[0].destination_port;
    assert!(copies.iter().all(|one| one.destination_port == port));
    let first = said.iter().position(|one| one.payload == copies[0].payload);
    let first = first.expect("it was said");
    for (at, (copy, one)) in copies.iter().zip(&said[first..]).enumerate() {
        assert_eq!(copy.payload, one.payload, "packet {at}");
        let number = copies[0].sequence.wrapping_add(at as u16);
        assert_eq!(copy.sequence, number, "packet {at}");
    }
    copies
}

#[test]
fn a_call_is_recorded_by_another_appliance_behind_a_proxy() {
    let test = "a_call_is_recorded_by_another_appliance_behind_a_proxy";
    if !installed("sipp") || !installed("kamailio") || !capture::possible() {
        return skip(
            test,
            "needs sipp, kamailio, and tshark with the right to capture",
        );
    }
    let recorder = Appliance::start(&Setup {
        next: "record".to_owned(),
        record: "false",
        ..Setup::to_port(0)
    });
    let (proxy_port, bob_port) = (free_port(), free_port());
    let route = format!(
        "[[route]]\nnext = \"sip:127.0.0.1:{bob_port}\"\nsrs = [\"sip:srs@127.0.0.1:{proxy_port}\"]\n"
    );
    let relay = Appliance::start(&Setup {
        next: String::new(),
        sip: Box::leak(route.into_boxed_str()),
        ..Setup::to_port(0)
    });
    let folder = relay.folder();
    let _proxy = Proxy::start(folder, proxy_port, relay.sip_port, recorder.sip_port);
    let wire = Capture::start(folder, recorder.rtp_first);
    let (alice, bob) = (Party::start(120, 1), Party::start(120, 2));
    let answering = Scenario::callee("bob")
        .expect_invite()
        .respond("200 OK", &bob.media())
        .expect_request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let calling = Scenario::caller("alice")
        .invite(&alice.media())
        .may_get(100)
        .may_get(180)
        .expect(200)
        .request("ACK")
        .pause_ms(4000)
        .request("BYE")
        .expect(200);
    let setup = SippSetup {
        port: bob_port,
        ..SippSetup::new("bob", answering)
    };
    let second = Sipp::start(folder, setup, None, "bob");
    let setup = SippSetup::new("alice", calling);
    let first = Sipp::start(folder, setup, Some(relay.sip_port), "bob");
    let session = eventually("the recorder takes it", Duration::from_secs(10), || {
        let list = relay.api.get("/v1/siprec");
        let one = list["items"].get(0)?;
        (one["state"] == "active").then(|| one.clone())
    });
    let ports = eventually("an answer", Duration::from_secs(10), || {
        answered_ports(&first)
    });
    alice.speak_to(ports[0]);
    bob.speak_to(offered_port(&second, bob.port));
    first.finish();
    second.finish();
    let (alice, bob) = (alice.finish(), bob.finish());
    let wire = wire.finish();
    let heard = [
        copies(&wire.packets, &alice.said),
        copies(&wire.packets, &bob.said),
    ];
    assert_ne!(heard[0][0].destination_port, heard[1][0].destination_port);

    let server = session["server"].as_str().expect("a server");
    assert!(server.contains(&proxy_port.to_string()), "{session}");
    let recording = recorder.api.wait_for_recordings(1).remove(0);
    check_receipt(&recording);
    assert_eq!(recording["verdict"], "complete", "{recording}");
    let wav = recorder.api.wav(&recording);
    for (side, track, copies) in [
        ("left", &wav.left, &heard[0]),
        ("right", &wav.right, &heard[1]),
    ] {
        let packets: Vec<RtpPacket> = copies.iter().map(|one| (*one).clone()).collect();
        assert_contains(side, track, &decode(&packets));
    }
    for (leg, copies) in ["caller", "callee"].iter().zip(&heard) {
        assert_eq!(
            recording["receipt"][leg]["written"],
            copies.len(),
            "{recording}"
        );
    }
}
