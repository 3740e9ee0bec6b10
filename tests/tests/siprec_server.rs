//! Our recorder (SRS): SIPp as the recording client of each kind, with media that is looked for in the WAV.

use trunkline_tests::Appliance;
use trunkline_tests::appliance::Setup;
use trunkline_tests::scenario::Scenario;
use trunkline_tests::siprec::{
    MULTIPART, Stream, Who, assert_heard, description, metadata, multipart, start, whole,
};

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
