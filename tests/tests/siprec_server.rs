//! Our recorder (SRS): SIPp as the recording client of each kind, with media that is looked for in the WAV.

use std::time::Duration;

use serde_json::Value;
use trunkline_tests::Appliance;
use trunkline_tests::api::check_receipt;
use trunkline_tests::appliance::Setup;
use trunkline_tests::hand::{Hand, Names};
use trunkline_tests::party::{Heard, Party};
use trunkline_tests::process::eventually;
use trunkline_tests::scenario::Scenario;
use trunkline_tests::sipp::Sipp;
use trunkline_tests::siprec::{
    MULTIPART, Stream, Who, assert_heard, description, metadata, multipart, start, whole,
};
use trunkline_tests::sound::{assert_contains, decode, find};

const SESSION: &str = "hVpd7YQgRW2nD22h7q60JQ==";
const GROUP: &str = "7+OTCyoxTmqmqyA/1weDAg==";
const ALICE: Who<'_> = Who {
    id: "srfBElmCRp2QB23b7Mpk0w==",
    aor: "sip:alice@atlanta.example",
    name: "Alice &lt;A&gt;",
    stream: "UAAMm5GRQKSCMVvLyl4rFw==",
    label: "96",
};
const BOB: Who<'_> = Who {
    id: "zSfPoSvdSDCmU3A3TRDxAw==",
    aor: "sip:bob@biloxi.example",
    name: "Bob",
    stream: "i1Pz3to5hGk8fuXl+PbwCw==",
    label: "97",
};
/// The headers of a client that keeps to RFC 7866.
const HEADERS: &str = "Contact: <sip:src@[local_ip]:[local_port]>;+sip.src\nRequire: siprec\n\
    Accept: application/sdp, application/rs-metadata+xml\nUser-Agent: OpenSIPS (3.5)\n";

fn recorder() -> Appliance {
    Appliance::start(&Setup {
        next: "record".to_owned(),
        record: "false",
        ..Setup::to_port(0)
    })
}

#[test]
fn two_streams_are_recorded_as_two_channels_and_listed() {
    let appliance = recorder();
    let streams = [Stream::new("96", 1), Stream::new("97", 2)];
    let sdp = description(1, &[&streams[0], &streams[1]], "sendonly");
    let scenario = Scenario::caller("src")
        .with_body(
            "INVITE",
            HEADERS,
            MULTIPART,
            &multipart(&sdp, &metadata(SESSION, GROUP, &[ALICE, BOB])),
        )
        .may_get(100)
        .expect(200)
        .request("ACK")
        .pause_ms(2200)
        .request("BYE")
        .expect(200);
    let (sipp, ports) = start(&appliance, appliance.folder(), "src", scenario, 2);
    for (stream, port) in streams.iter().zip(&ports) {
        stream.party.speak_to(*port);
    }
    let listed = appliance.api.get("/v1/siprec");
    assert_eq!(listed["items"][0]["role"], "server", "{listed}");
    assert_eq!(listed["items"][0]["streams"][1]["label"], "97", "{listed}");
    let trace = sipp.finish_with_trace();
    let [left, right] = streams.map(|stream| stream.party.finish());
    assert!(
        left.heard.is_empty() && right.heard.is_empty(),
        "nothing is relayed"
    );
    for line in ["a=label:96", "a=label:97", "a=recvonly", "+sip.srs"] {
        assert!(trace.contains(line), "{line}: {trace}");
    }
    let (recording, wav) = whole(&appliance);
    assert_heard("left", &wav.left, &left);
    assert_heard("right", &wav.right, &right);
    let said = [&left, &right].map(|one| one.said.len() as u64);
    let receipt = &recording["receipt"];
    assert_eq!(receipt["caller"]["written"], said[0], "{recording}");
    assert_eq!(receipt["callee"]["written"], said[1], "{recording}");
    let participants = &recording["participants"];
    assert_eq!(participants[0]["uri"], ALICE.aor, "{recording}");
    assert_eq!(participants[0]["name"], "Alice <A>");
    assert_eq!(participants[0]["channel"], 0);
    assert_eq!(participants[1]["uri"], BOB.aor);
    assert_eq!(participants[1]["channel"], 1);
    assert_eq!(recording["attributes"]["siprec.session"], SESSION);
    let id = recording["id"].as_str().expect("an id");
    let told = appliance.api.get(&format!("/v1/recordings/{id}/metadata"));
    let document = told["items"][0]["document"].as_str().expect("a document");
    assert!(
        document.contains(ALICE.name) && document.contains(BOB.stream),
        "{told}"
    );
    assert_eq!(told["items"][0]["whole"], true);
    // It is no call.
    assert!(appliance.api.calls().is_empty());
    let ended = appliance.api.get("/v1/calls?state=ended");
    assert_eq!(ended["items"].as_array().map(Vec::len), Some(0), "{ended}");
    let found = appliance.api.get("/v1/recordings?party=alice");
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1), "{found}");
}

/// A client that records the same communication session as every other of these, with two streams of so many
/// packets and unlike those of other seeds, for so long.
fn client(
    appliance: &Appliance,
    name: &str,
    seed: u32,
    packets: u32,
    pause_ms: u32,
) -> (Sipp, [Stream; 2]) {
    let streams = [("96", seed), ("97", seed + 1)].map(|(label, seed)| Stream {
        party: Party::start(packets, seed),
        label: label.to_owned(),
    });
    let sdp = description(1, &[&streams[0], &streams[1]], "sendonly");
    let body = multipart(&sdp, &metadata(SESSION, GROUP, &[ALICE, BOB]));
    let scenario = Scenario::caller(name)
        .with_body("INVITE", HEADERS, MULTIPART, &body)
        .may_get(100)
        .expect(200)
        .request("ACK")
        .pause_ms(pause_ms)
        .request("BYE")
        .expect(200);
    let (sipp, ports) = start(appliance, appliance.folder(), name, scenario, 2);
    for (stream, port) in streams.iter().zip(&ports) {
        stream.party.speak_to(*port);
    }
    (sipp, streams)
}

/// What the two streams of a client have said.
fn said([left, right]: [Stream; 2]) -> [Heard; 2] {
    [left.party.finish(), right.party.finish()]
}

/// The only recording, once it is finished with all packets of these clients.
fn only(appliance: &Appliance, clients: &[&[Heard; 2]]) -> Value {
    let sent: [u64; 2] = [0, 1].map(|side: usize| {
        let all = clients.iter().map(|one| one[side].said.len() as u64);
        all.sum()
    });
    let recording = eventually("one whole recording", Duration::from_secs(15), || {
        let all = appliance.api.wait_for_recordings(1);
        let receipt = &all[0]["receipt"];
        let written = [&receipt["caller"]["written"], &receipt["callee"]["written"]];
        (written == sent).then(|| all[0].clone())
    });
    check_receipt(&recording);
    assert_eq!(recording["verdict"], "complete", "{recording}");
    assert_eq!(recording["participants"].as_array().map(Vec::len), Some(2));
    let receipt = &recording["receipt"];
    let streams = receipt["streams"].as_array().map(Vec::len);
    assert_eq!(streams, Some(2 * clients.len()), "{recording}");
    recording
}

#[test]
fn an_active_and_a_standby_session_are_one_recording_with_the_sound_once() {
    let appliance = recorder();
    // The active one dies after a second and a half; its standby speaks for three.
    let (active, first) = client(&appliance, "active", 1, 75, 2500);
    let (standby, second) = client(&appliance, "standby", 11, 150, 3600);
    let listed = appliance.api.get("/v1/siprec");
    assert_eq!(
        listed["items"].as_array().map(Vec::len),
        Some(2),
        "{listed}"
    );
    active.finish();
    standby.finish();
    let (first, second) = (said(first), said(second));
    let recording = only(&appliance, &[&first, &second]);
    let wav = appliance.api.wav(&recording);
    for (side, track) in [&wav.left, &wav.right].into_iter().enumerate() {
        assert_heard("of the active one", track, &first[side]);
        let active_end = assert_contains("of the active one", track, &decode(&first[side].said))
            + 160 * first[side].said.len();
        // Of the standby's what the active one has not: from then on, to the sample.
        let later = &second[side].said[100..];
        let at = assert_contains("of the standby", track, &decode(later));
        assert!(at >= active_end, "{at} {active_end}");
        let covered = decode(&second[side].said[20..30]);
        assert_eq!(find(track, &covered), None, "heard twice");
    }
}

#[test]
fn a_session_after_a_failover_goes_on_with_the_recording_of_the_one_before() {
    let appliance = recorder();
    let (one, first) = client(&appliance, "one", 1, 75, 1900);
    one.finish();
    let first = said(first);
    let ended = appliance.api.wait_for_recordings(1).remove(0);
    let (other, second) = client(&appliance, "other", 11, 75, 1900);
    let listed = appliance.api.get("/v1/recordings");
    assert_eq!(listed["items"][0]["state"], "recording", "{listed}");
    other.finish();
    let second = said(second);
    let recording = only(&appliance, &[&first, &second]);
    assert_eq!(recording["id"], ended["id"]);
    let wav = appliance.api.wav(&recording);
    for (side, track) in [&wav.left, &wav.right].into_iter().enumerate() {
        let at = assert_contains("before", track, &decode(&first[side].said));
        let then = assert_contains("after", track, &decode(&second[side].said));
        assert!(then > at + 160 * first[side].said.len(), "{at} {then}");
    }
    // What each client told is kept under its session.
    let id = recording["id"].as_str().expect("an id");
    let told = appliance.api.get(&format!("/v1/recordings/{id}/metadata"));
    assert_eq!(told["items"].as_array().map(Vec::len), Some(2), "{told}");
    assert_eq!(told["items"][1]["whole"], true, "{told}");
}

/// A session of one stream by hand, its metadata as given. Of what is longer than a message may be only the
/// beginning is sent.
fn ask_by_hand(hand: &Hand, appliance: &Appliance, document: &str) -> Names {
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
        m=audio 6000 RTP/AVP 8\r\na=sendonly\r\na=label:1\r\n";
    let body = format!(
        "--b\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--b\r\n\
         Content-Type: application/rs-metadata+xml\r\n\r\n{document}\r\n--b--\r\n"
    );
    let mut names = hand.names("srs", appliance.sip_port);
    names.cseq = 1;
    let headers = "Require: siprec\r\nContent-Type: multipart/mixed;boundary=b\r\n";
    let text = hand.request(("INVITE", 1), &names, "z9hG4bKlong", headers, &body);
    let own = "Content-Type: application/sdp\r\nContent-Length";
    let text = text.replace(own, "Content-Length");
    let sent = match text.len() {
        0..262_144 => text.len(),
        _ => 4096,
    };
    hand.send(&text.as_bytes()[..sent]);
    names
}

#[test]
fn a_megabyte_of_metadata_is_refused_and_what_is_merely_too_much_put_aside() {
    let appliance = recorder();
    // More elements than a document may have: the media is recorded, the document quarantined.
    let hand = Hand::over_tcp(appliance.sip_port);
    let much = format!("<recording>{}</recording>", "<x/>".repeat(50_000));
    let mut names = ask_by_hand(&hand, &appliance, &much);
    names.learn(&hand.expect("SIP/2.0 200"));
    hand.acknowledge(&names, 1, "");
    // Longer than a message may be: another's connection, which ends.
    let stranger = Hand::over_tcp(appliance.sip_port);
    let endless = format!("<recording>{}</recording>", "<x/>".repeat(300_000));
    let _ = ask_by_hand(&stranger, &appliance, &endless);
    stranger.expect("SIP/2.0 513");
    hand.ask(&mut names, "BYE", "", "");
    hand.expect("SIP/2.0 200");
    let recording = appliance.api.wait_for_recordings(1).remove(0);
    let id = recording["id"].as_str().expect("an id");
    let told = appliance.api.get(&format!("/v1/recordings/{id}/metadata"));
    assert!(told["items"][0]["quarantined"].is_string(), "a reason");
}
