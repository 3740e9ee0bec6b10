//! Our recorder and the clients of each maker, as they write (in our own words): what each stream carries
//! is in the WAV where the party belongs, under its name.

use serde_json::Value;
use trunkline_tests::Appliance;
use trunkline_tests::api::Stereo;
use trunkline_tests::appliance::Setup;
use trunkline_tests::party::Heard;
use trunkline_tests::scenario::Scenario;
use trunkline_tests::siprec::{Stream, assert_heard, description, start, whole};

/// A client's first message, and what it says later.
struct Client<'a> {
    headers: &'a str,
    kind: &'a str,
    labels: &'a [&'a str],
    body: &'a dyn Fn(&str) -> String,
    later: &'a dyn Fn(Scenario) -> Scenario,
}

struct Recorded {
    recording: Value,
    wav: Stereo,
    sent: Vec<Heard>,
    trace: String,
}

impl Client<'_> {
    /// Has it record to us and gives what was kept.
    fn record(&self) -> Recorded {
        let appliance = Appliance::start(&Setup {
            next: "record".to_owned(),
            record: "false",
            ..Setup::to_port(0)
        });
        let streams: Vec<Stream> = (1..)
            .zip(self.labels)
            .map(|(seed, label)| Stream::new(label, seed))
            .collect();
        let all: Vec<&Stream> = streams.iter().collect();
        let sdp = description(1, &all, "sendonly");
        let scenario = Scenario::caller("src")
            .with_body("INVITE", self.headers, self.kind, &(self.body)(&sdp))
            .may_get(100)
            .expect(200)
            .request("ACK")
            .pause_ms(1800);
        let scenario = (self.later)(scenario).request("BYE").expect(200);
        let lines = streams.len();
        let (sipp, ports) = start(&appliance, appliance.folder(), "src", scenario, lines);
        for (stream, port) in streams.iter().zip(&ports) {
            stream.party.speak_to(*port);
        }
        let trace = sipp.finish_with_trace();
        let sent = streams.into_iter().map(|one| one.party.finish()).collect();
        let (recording, wav) = whole(&appliance);
        Recorded {
            recording,
            wav,
            sent,
            trace,
        }
    }
}

impl Recorded {
    /// The first stream is on the left and the second on the right, under these addresses and names.
    fn assert_pair(&self, left: (&str, &str), right: (&str, &str)) {
        assert_heard("left", &self.wav.left, &self.sent[0]);
        assert_heard("right", &self.wav.right, &self.sent[1]);
        self.assert_named(&[(0, left), (1, right)]);
    }

    fn assert_named(&self, wanted: &[(u64, (&str, &str))]) {
        let said = &self.recording["participants"];
        let found: Vec<(u64, (&str, &str))> = said
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| {
                let text = |field: &str| one[field].as_str().unwrap_or_default();
                (
                    one["channel"].as_u64().unwrap_or(9),
                    (text("uri"), text("name")),
                )
            })
            .collect();
        assert_eq!(found, wanted, "{}", self.recording);
    }
}

fn nothing_more(scenario: Scenario) -> Scenario {
    scenario
}

fn contact(parameter: &str, more: &str) -> String {
    format!("Contact: <sip:src@[local_ip]:[local_port]>{parameter}\n{more}")
}

#[test]
fn cisco_cube_with_disposition_first_a_third_part_and_no_closing_boundary() {
    let body = |sdp: &str| {
        format!(
            "--uniqueBoundary\nContent-Disposition: session;handling=required\nContent-Type: application/sdp\n\n\
             {sdp}\n--uniqueBoundary\nContent-Disposition: recording-session\n\
             Content-Type: application/rs-metadata+xml\n\n\
             <?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">\n\
             <datamode>complete</datamode>\n\
             <session session_id=\"cuEeQ0ntEeuAcJ0M8f0Ftw==\"><sipSessionID>66b3dc9a5b9e4ee7;remote=0</sipSessionID>\
             <start-time>2026-11-28T01:02:03.123Z</start-time></session>\n\
             <participant participant_id=\"cuEeQ0ntEeuAcZ0M8f0Ftw==\"><nameID aor=\"sip:2000@10.0.0.1\"></nameID></participant>\n\
             <participantsessionassoc participant_id=\"cuEeQ0ntEeuAcZ0M8f0Ftw==\" session_id=\"cuEeQ0ntEeuAcJ0M8f0Ftw==\">\
             <associate-time>2026-11-28T01:02:03.123Z</associate-time></participantsessionassoc>\n\
             <stream stream_id=\"cuHIy0ntEeuAdJ0M8f0Ftw==\" session_id=\"cuEeQ0ntEeuAcJ0M8f0Ftw==\"><label>1</label></stream>\n\
             <participant participant_id=\"cuEeQ0ntEeuAcp0M8f0Ftw==\"><nameID aor=\"sip:1000@10.0.0.1\"></nameID></participant>\n\
             <participantsessionassoc participant_id=\"cuEeQ0ntEeuAcp0M8f0Ftw==\" session_id=\"cuEeQ0ntEeuAcJ0M8f0Ftw==\">\
             <associate-time>2026-11-28T01:02:03.123Z</associate-time></participantsessionassoc>\n\
             <stream stream_id=\"cuHIy0ntEeuAdZ0M8f0Ftw==\" session_id=\"cuEeQ0ntEeuAcJ0M8f0Ftw==\"><label>2</label></stream>\n\
             <participantstreamassoc participant_id=\"cuEeQ0ntEeuAcZ0M8f0Ftw==\"><send>cuHIy0ntEeuAdJ0M8f0Ftw==</send>\
             <recv>cuHIy0ntEeuAdZ0M8f0Ftw==</recv></participantstreamassoc>\n\
             <participantstreamassoc participant_id=\"cuEeQ0ntEeuAcp0M8f0Ftw==\"><send>cuHIy0ntEeuAdZ0M8f0Ftw==</send>\
             <recv>cuHIy0ntEeuAdJ0M8f0Ftw==</recv></participantstreamassoc>\n</recording>\n\
             --uniqueBoundary\nContent-Type: application/gtd\nContent-Disposition: signal;handling=optional\n\n\
             IAM,\nPRN,isdn*,,NET5*,\n"
        )
    };
    let recorded = Client {
        headers: &contact(
            ";+sip.src",
            "Require: siprec\nUser-Agent: Cisco-SIPGateway/IOS-17.6.1a\nMin-SE: 1800\n",
        ),
        kind: "multipart/mixed;boundary=uniqueBoundary",
        labels: &["1", "2"],
        body: &body,
        later: &nothing_more,
    }
    .record();
    recorded.assert_pair(("sip:2000@10.0.0.1", ""), ("sip:1000@10.0.0.1", ""));
    assert_eq!(
        recorded.recording["session_id"], "66b3dc9a5b9e4ee7",
        "{}",
        recorded.recording
    );
}

#[test]
fn oracle_with_the_older_namespace_times_without_zone_and_large_labels() {
    let body = |sdp: &str| {
        format!(
            "--unique-boundary-1\nContent-Type: application/sdp\n\n{sdp}\n--unique-boundary-1\n\
             Content-Type: application/rs-metadata+xml\nContent-Disposition: recording-session\n\n\
             <?xml version='1.0' encoding='UTF-8'?>\n<recording xmlns='urn:ietf:params:xml:ns:recording'>\n\
             <dataMode>complete</dataMode>\n\
             <session id=\"BYiC7uSZQGN3VQdzWI1HWw==\"><associate-time>2026-11-28T01:02:03</associate-time>\
             <extensiondata xmlns:apkt=\"http://acmepacket.com/siprec/extensiondata\"><apkt:ucid>00FA;encoding=hex</apkt:ucid></extensiondata></session>\n\
             <participant id=\"U5AILTJ2QbtIITyqgGm5IA==\" session=\"BYiC7uSZQGN3VQdzWI1HWw==\">\
             <nameID aor=\"sip:sipp@168.192.24.40\"><name>sipp</name></nameID>\
             <send>aD5XXl8QSdpwYxNs8m2lzA==</send><associate-time>2026-11-28T01:02:03</associate-time>\
             <extensiondata xmlns:apkt=\"http://acmepacket.com/siprec/extensiondata\"><apkt:callingParty>true</apkt:callingParty></extensiondata></participant>\n\
             <participant id=\"yeWCkWtKQ6NQjQFpkGbTPA==\" session=\"BYiC7uSZQGN3VQdzWI1HWw==\">\
             <nameID aor=\"sip:service@168.192.24.60\"><name>sut</name></nameID>\
             <send>czRt2YPLSFxcDMBrVYCATQ==</send><associate-time>2026-11-28T01:02:03</associate-time></participant>\n\
             <stream id=\"aD5XXl8QSdpwYxNs8m2lzA==\" session=\"BYiC7uSZQGN3VQdzWI1HWw==\"><label>90216001</label><mode>separate</mode></stream>\n\
             <stream id=\"czRt2YPLSFxcDMBrVYCATQ==\" session=\"BYiC7uSZQGN3VQdzWI1HWw==\"><label>90216002</label><mode>separate</mode></stream>\n\
             </recording>\n--unique-boundary-1--\n"
        )
    };
    let recorded = Client {
        headers: &contact(
            ";+sip.src",
            "Require: siprec\nSupported: siprec\nUser-Agent: Acme Packet 4600\n",
        ),
        kind: "multipart/mixed; boundary=unique-boundary-1",
        labels: &["90216001", "90216002"],
        body: &body,
        later: &nothing_more,
    }
    .record();
    recorded.assert_pair(
        ("sip:sipp@168.192.24.40", "sipp"),
        ("sip:service@168.192.24.60", "sut"),
    );
}

fn avaya(names: [&str; 2]) -> String {
    let party = |id: &str, name: &str, label: &str| {
        format!(
            "<participant participant_id=\"{id}\"><nameID aor=\"sip:{name}@sbce.example\"><name xml:lang=\"en\">{name}</name></nameID></participant>\n\
             <stream stream_id=\"\" session_id=\"DKdJTcmSSiaRPlkgvFw6fw==\"><label>{label}</label></stream>\n\
             <participantsessionassoc participant_id=\"{id}\" session_id=\"DKdJTcmSSiaRPlkgvFw6fw==\"/>\n\
             <participantstreamassoc participant_id=\"{id}\"><send>{label}</send></participantstreamassoc>\n"
        )
    };
    format!(
        "<?xml version=\"1.0\"?>\n<recording xmlns='urn:ietf:params:xml:ns:recording:1'>\n<dataMode>complete</dataMode>\n\
         <session session_id=\"DKdJTcmSSiaRPlkgvFw6fw==\"/>\n{}{}</recording>\n",
        party("ZWmJJlBWSd6yUzEcmJzNLQ==", names[0], "11"),
        party("b0dJ8pVLQvCZtWjQKF3xDQ==", names[1], "12"),
    )
}

#[test]
fn avaya_with_a_dummy_party_whose_name_comes_by_an_update_without_sdp() {
    let body = |sdp: &str| {
        format!(
            "--rec-boundary\nContent-Type: application/sdp\nContent-Length: {}\n\n{sdp}\n--rec-boundary\n\
             Content-Type: application/rs-metadata+xml\nContent-Disposition: recording-session\n\n{}\n--rec-boundary--\n",
            sdp.len(),
            avaya(["dummy", "5002"])
        )
    };
    let update = |scenario: Scenario| {
        scenario
            .with_body(
                "UPDATE",
                "Contact: <sip:src@[local_ip]:[local_port]>;+sip.src\nContent-Disposition: recording-session\n",
                "application/rs-metadata+xml",
                &avaya(["5001", "5002"]),
            )
            .expect(200)
            .pause_ms(100)
    };
    let recorded = Client {
        headers: &contact(";+sip.src", "Require: siprec\nUser-Agent: Avaya SBCE\n"),
        kind: "multipart/mixed;boundary=rec-boundary",
        labels: &["11", "12"],
        body: &body,
        later: &update,
    }
    .record();
    recorded.assert_pair(
        ("sip:5001@sbce.example", "5001"),
        ("sip:5002@sbce.example", "5002"),
    );
}

#[test]
fn broadworks_with_metadata_first_and_a_contact_that_only_says_src() {
    let body = |sdp: &str| {
        format!(
            "\n--UniqueBroadWorksBoundary\nContent-Type: application/rs-metadata+xml\nContent-Disposition: recording-session\n\n\
             <?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<recording_metadata xmlns=\"urn:ietf:params:xml:ns:recording\">\n\
             <dataMode>complete</dataMode>\n<group id=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000001\"/>\n\
             <session id=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000002\"><group>urn:uuid:93f1b6a2-1111-4000-8000-000000000001</group></session>\n\
             <participant id=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000003\" session=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000002\">\
             <nameID aor=\"sip:+12065550100@as.example\"/><send>urn:uuid:93f1b6a2-1111-4000-8000-000000000005</send></participant>\n\
             <participant id=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000004\" session=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000002\">\
             <nameID aor=\"tel:+12065550199\"/><send>urn:uuid:93f1b6a2-1111-4000-8000-000000000006</send></participant>\n\
             <stream id=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000005\" session=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000002\"><label>1</label></stream>\n\
             <stream id=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000006\" session=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000002\"><label>2</label></stream>\n\
             </recording_metadata>\n--UniqueBroadWorksBoundary\nContent-Type: application/SDP\n\n{}\n--UniqueBroadWorksBoundary--\n",
            // Its way to say that it receives nothing.
            sdp.replace("c=IN IP4 127.0.0.1", "c=IN IP4 0.0.0.0")
        )
    };
    let recorded = Client {
        headers: &contact(";src", "User-Agent: BroadWorks\n"),
        kind: "multipart/mixed;boundary=UniqueBroadWorksBoundary",
        labels: &["1", "2"],
        body: &body,
        later: &nothing_more,
    }
    .record();
    recorded.assert_pair(
        ("sip:+12065550100@as.example", ""),
        ("tel:+12065550199", ""),
    );
}

#[test]
fn ribbon_with_a_prefix_and_send_and_recv_crossed() {
    let body = |sdp: &str| {
        format!(
            "--sonus-content-delim\nContent-Type: application/sdp\n\n{sdp}\n--sonus-content-delim\n\
             Content-Disposition: recording-session\nContent-Type: application/rs-metadata+xml\n\n\
             <?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<tns:recording xmlns:tns=\"urn:ietf:params:xml:ns:recording:1\">\n\
             <tns:datamode>complete</tns:datamode>\n<tns:session session_id=\"NDg4NWQ0YmEtMDAwMA==\"/>\n\
             <tns:participant participant_id=\"QQ==\"><tns:nameID aor=\"9000@10.54.80.1\"/></tns:participant>\n\
             <tns:participant participant_id=\"Qg==\"><tns:nameID aor=\"8000@10.54.80.2\"/></tns:participant>\n\
             <tns:stream stream_id=\"MQ==\" session_id=\"NDg4NWQ0YmEtMDAwMA==\"><tns:label>1</tns:label></tns:stream>\n\
             <tns:stream stream_id=\"Mg==\" session_id=\"NDg4NWQ0YmEtMDAwMA==\"><tns:label>2</tns:label></tns:stream>\n\
             <tns:participantstreamassoc participant_id=\"QQ==\"><tns:send>Mg==</tns:send><tns:recv>MQ==</tns:recv></tns:participantstreamassoc>\n\
             <tns:participantstreamassoc participant_id=\"Qg==\"><tns:send>MQ==</tns:send><tns:recv>Mg==</tns:recv></tns:participantstreamassoc>\n\
             </tns:recording>\n--sonus-content-delim--\n"
        )
    };
    let recorded = Client {
        headers: &contact(";+sip.src", "Require: siprec\nUser-Agent: Ribbon SBC SWe\n"),
        kind: "multipart/mixed;boundary=sonus-content-delim",
        labels: &["1", "2"],
        body: &body,
        later: &nothing_more,
    }
    .record();
    recorded.assert_pair(("9000@10.54.80.1", ""), ("8000@10.54.80.2", ""));
}

#[test]
fn audiocodes_with_older_ids_and_src_in_the_contact() {
    let body = |sdp: &str| {
        format!(
            "--boundary_ac1fffff85b\nContent-Type: application/sdp\n\n{sdp}\n--boundary_ac1fffff85b\n\
             Content-Type: application/rs-metadata\nContent-Disposition: recording-session\n\n\
             <?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<recording xmlns='urn:ietf:params:xml:ns:recording'>\n\
             <datamode>complete</datamode>\n<group id=\"00000000-0000-0000-0000-00003a36c4e3\"/>\n\
             <session id=\"0000-0000-0000-0000-00000000d0d71a52\"><group-ref>00000000-0000-0000-0000-00003a36c4e3</group-ref>\
             <start-time>2026-11-28T00:52:23Z</start-time></session>\n\
             <participant id=\"1056466168\" session=\"0000-0000-0000-0000-00000000d0d71a52\"><nameID aor=\"2001@10.33.8.41\"></nameID>\
             <send>1842584144</send><recv>818192888</recv></participant>\n\
             <participant id=\"1056466269\" session=\"0000-0000-0000-0000-00000000d0d71a52\"><nameID aor=\"6001@10.33.8.70\"></nameID>\
             <send>818192888</send><recv>1842584144</recv></participant>\n\
             <stream id=\"1842584144\" session=\"0000-0000-0000-0000-00000000d0d71a52\"><label>1</label></stream>\n\
             <stream id=\"818192888\" session=\"0000-0000-0000-0000-00000000d0d71a52\"><label>2</label></stream>\n\
             </recording>\n--boundary_ac1fffff85b--\n"
        )
    };
    let recorded = Client {
        headers: &contact(
            ";src",
            "Require: siprec\nUser-Agent: Mediant VE SBC/v.7.40A\n",
        ),
        kind: "multipart/mixed;boundary=boundary_ac1fffff85b",
        labels: &["1", "2"],
        body: &body,
        later: &nothing_more,
    }
    .record();
    recorded.assert_pair(("2001@10.33.8.41", ""), ("6001@10.33.8.70", ""));
}

#[test]
fn sems_with_labels_of_letters_and_crossed_order() {
    let body = |sdp: &str| {
        format!(
            "--b\nContent-Type: application/sdp\n\n{sdp}\n--b\nContent-Type: application/rs-metadata+xml\n\n\
             <recording xmlns='urn:ietf:params:xml:ns:recording:1'>\
             <session session_id=\"s\"/>\
             <participant participant_id=\"b\"><nameID aor=\"sip:bleg@h\"/></participant>\
             <participant participant_id=\"a\"><nameID aor=\"sip:aleg@h\"/></participant>\
             <stream stream_id=\"sb\" session_id=\"s\"><label>b_leg</label></stream>\
             <stream stream_id=\"sa\" session_id=\"s\"><label>a_leg</label></stream>\
             <participantstreamassoc participant_id=\"b\"><send>sb</send></participantstreamassoc>\
             <participantstreamassoc participant_id=\"a\"><send>sa</send></participantstreamassoc>\
             </recording>\n--b--\n"
        )
    };
    let recorded = Client {
        headers: &contact(";+sip.src", "User-Agent: SEMS\n"),
        kind: "multipart/mixed;boundary=b",
        // The order of the m-lines is not that of the participants: labels say who is who.
        labels: &["a_leg", "b_leg"],
        body: &body,
        later: &nothing_more,
    }
    .record();
    assert_heard("left", &recorded.wav.left, &recorded.sent[1]);
    assert_heard("right", &recorded.wav.right, &recorded.sent[0]);
    recorded.assert_named(&[(0, ("sip:bleg@h", "")), (1, ("sip:aleg@h", ""))]);
}

#[test]
fn freeswitch_with_one_mixed_stream() {
    let body = |sdp: &str| {
        format!(
            "--OSS-unique-boundary-42\nContent-Type: application/sdp\n\n{sdp}\n--OSS-unique-boundary-42\n\
             Content-Type: application/rs-metadata+xml\nContent-Disposition: recording-session\n\n\
             <recording xmlns='urn:ietf:params:xml:ns:recording:1'><datamode>complete</datamode>\
             <session session_id=\"c1\"/>\
             <participant participant_id=\"p1\"><nameID aor=\"sip:1001@fs\"><name>One</name></nameID></participant>\
             <participant participant_id=\"p2\"><nameID aor=\"sip:1002@fs\"><name>Two</name></nameID></participant>\
             <stream stream_id=\"st\" session_id=\"c1\"><label>0</label></stream>\
             <participantstreamassoc participant_id=\"p1\"><send>st</send></participantstreamassoc>\
             <participantstreamassoc participant_id=\"p2\"><send>st</send></participantstreamassoc>\
             </recording>\n--OSS-unique-boundary-42--\n"
        )
    };
    let recorded = Client {
        headers: &contact(";+sip.src", "Require: siprec\nUser-Agent: FreeSWITCH\n"),
        kind: "multipart/mixed;boundary=OSS-unique-boundary-42",
        labels: &["0"],
        body: &body,
        later: &nothing_more,
    }
    .record();
    // Complete although one side only is heard: there is but one.
    assert_heard("left", &recorded.wav.left, &recorded.sent[0]);
    assert!(recorded.wav.right.iter().all(|sample| *sample == 0));
    recorded.assert_named(&[(0, ("sip:1001@fs", "One")), (0, ("sip:1002@fs", "Two"))]);
}

#[test]
fn metaswitch_with_one_mixed_stream_without_a_label() {
    let body = |sdp: &str| {
        format!(
            "--mb\nContent-Type: application/sdp\n\n{sdp}\n--mb\nContent-Type: application/rs-metadata+xml\n\
             Content-Disposition: recording-session\n\n<?xml version=\"1.0\"?>\n\
             <recording xmlns='urn:ietf:params:xml:ns:recording'><datamode>complete</datamode>\
             <session id=\"m\"/><participant id=\"x\" session=\"m\"><nameID aor=\"sip:201@ms\"/></participant>\
             <participant id=\"y\" session=\"m\"><nameID aor=\"sip:202@ms\"/></participant>\
             <stream id=\"1\" session=\"m\"><mode>mixed</mode></stream></recording>\n--mb--\n"
        )
    };
    let recorded = Client {
        headers: &contact(";+sip.src", "Require: siprec\nUser-Agent: Metaswitch CFS\n"),
        kind: "multipart/mixed;boundary=mb",
        labels: &[""],
        body: &body,
        later: &nothing_more,
    }
    .record();
    assert_heard("left", &recorded.wav.left, &recorded.sent[0]);
    recorded.assert_named(&[(0, ("sip:201@ms", "")), (0, ("sip:202@ms", ""))]);
}

#[test]
fn netsapiens_finds_its_labels_in_the_answer() {
    let body = |sdp: &str| {
        format!(
            "--ns\nContent-Type: application/sdp\n\n{sdp}\n--ns\nContent-Type: application/rs-metadata+xml\n\
             Content-Disposition: recording-session\n\n\
             <recording xmlns='urn:ietf:params:xml:ns:recording:1'><datamode>complete</datamode>\
             <group group_id=\"g9\"/><session session_id=\"n\"><group-ref>g9</group-ref></session>\
             <participant participant_id=\"u\"><nameID aor=\"sip:100@ns\"/></participant>\
             <participant participant_id=\"v\"><nameID aor=\"sip:15551234@ns\"/></participant>\
             <stream stream_id=\"s1\" session_id=\"n\"><label>1</label></stream>\
             <stream stream_id=\"s2\" session_id=\"n\"><label>2</label></stream>\
             <participantstreamassoc participant_id=\"u\"><recv>s2</recv></participantstreamassoc>\
             <participantstreamassoc participant_id=\"v\"><recv>s1</recv></participantstreamassoc>\
             </recording>\n--ns--\n"
        )
    };
    let recorded = Client {
        headers: &contact(
            ";+sip.src",
            "Require: siprec\nUser-Agent: NetSapiens SiPBx\n",
        ),
        kind: "multipart/mixed;boundary=ns",
        labels: &["1", "2"],
        body: &body,
        later: &nothing_more,
    }
    .record();
    // Only what each hears is said: the other one speaks.
    recorded.assert_pair(("sip:100@ns", ""), ("sip:15551234@ns", ""));
    assert_eq!(recorded.recording["attributes"]["siprec.group"], "g9");
    let answers = recorded.trace.matches("a=label:2").count();
    assert!(
        answers >= 2,
        "the answer repeats the labels: {}",
        recorded.trace
    );
}

#[test]
fn opensips_with_times_that_are_not_rfc_3339_and_one_stream_each() {
    let body = |sdp: &str| {
        format!(
            "--OSS-unique-boundary-42\nContent-Type: application/sdp\n\n{sdp}\n--OSS-unique-boundary-42\n\
             Content-Type: application/rs-metadata+xml\nContent-Disposition: recording-session\n\n\
             <?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<recording xmlns='urn:ietf:params:xml:ns:recording:1'>\n\
             <datamode>complete</datamode>\n<session session_id=\"b1nYyyXSS0yAkJy6wUrFLA==\">\n\
             <sipSessionID>1-21@192.0.2.7</sipSessionID>\n</session>\n\
             <participant participant_id=\"pJp0xKcrQF6yOyRTSFcm1g==\">\n<nameID aor=\"sip:alice@192.0.2.7\">\n\
             <name>Alice</name>\n</nameID>\n</participant>\n\
             <participant participant_id=\"bGG3oyMuRtOmjPXgLnyBhQ==\">\n<nameID aor=\"sip:bob@192.0.2.8\">\n\
             </nameID>\n</participant>\n\
             <stream stream_id=\"ct1WfUwhTBmQUlpbBhwMGw==\" session_id=\"b1nYyyXSS0yAkJy6wUrFLA==\">\n<label>0</label>\n</stream>\n\
             <stream stream_id=\"Y6wkwMBgS9eDCJ5ryR2mcQ==\" session_id=\"b1nYyyXSS0yAkJy6wUrFLA==\">\n<label>1</label>\n</stream>\n\
             <sessionrecordingassoc session_id=\"b1nYyyXSS0yAkJy6wUrFLA==\">\n\
             <associate-time>2026-11-28 01:02:03</associate-time>\n</sessionrecordingassoc>\n\
             <participantsessionassoc participant_id=\"pJp0xKcrQF6yOyRTSFcm1g==\" session_id=\"b1nYyyXSS0yAkJy6wUrFLA==\">\n\
             <associate-time>2026-11-28 01:02:03</associate-time>\n</participantsessionassoc>\n\
             <participantstreamassoc participant_id=\"pJp0xKcrQF6yOyRTSFcm1g==\">\n\
             <send>ct1WfUwhTBmQUlpbBhwMGw==</send>\n<recv>Y6wkwMBgS9eDCJ5ryR2mcQ==</recv>\n</participantstreamassoc>\n\
             <participantstreamassoc participant_id=\"bGG3oyMuRtOmjPXgLnyBhQ==\">\n\
             <send>Y6wkwMBgS9eDCJ5ryR2mcQ==</send>\n<recv>ct1WfUwhTBmQUlpbBhwMGw==</recv>\n</participantstreamassoc>\n\
             </recording>\n--OSS-unique-boundary-42--\n"
        )
    };
    let recorded = Client {
        headers: &contact(
            ";+sip.src",
            "Require: siprec\nAccept: application/sdp, application/rs-metadata+xml\nUser-Agent: OpenSIPS (3.4.2 (x86_64/linux))\n",
        ),
        kind: "multipart/mixed;boundary=OSS-unique-boundary-42",
        labels: &["0", "1"],
        body: &body,
        later: &nothing_more,
    }
    .record();
    recorded.assert_pair(("sip:alice@192.0.2.7", "Alice"), ("sip:bob@192.0.2.8", ""));
}

#[test]
fn drachtio_before_rtpengine_pauses_by_inactive_and_resumes() {
    let document = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">\n\
        <datamode>complete</datamode>\n<session session_id=\"67a1b2\"><sipSessionID>d1c0</sipSessionID></session>\n\
        <participant participant_id=\"part-1\"><nameID aor=\"+15550001\"><name>Caller</name></nameID></participant>\n\
        <participantsessionassoc participant_id=\"part-1\" session_id=\"67a1b2\"/>\n\
        <stream stream_id=\"str-1\" session_id=\"67a1b2\"><label>0</label></stream>\n\
        <participant participant_id=\"part-2\"><nameID aor=\"+15550002\"/></participant>\n\
        <participantsessionassoc participant_id=\"part-2\" session_id=\"67a1b2\"/>\n\
        <stream stream_id=\"str-2\" session_id=\"67a1b2\"><label>1</label></stream>\n\
        <participantstreamassoc participant_id=\"part-1\"><send>str-1</send><recv>str-2</recv></participantstreamassoc>\n\
        <participantstreamassoc participant_id=\"part-2\"><send>str-2</send><recv>str-1</recv></participantstreamassoc>\n\
        </recording>";
    // rtpengine numbers its labels from 0 and sends what the offer lists first; drachtio adds headers of its own.
    let body = |sdp: &str| {
        format!(
            "--uniqueBoundary\nContent-Disposition: session;handling=required\nContent-Type: application/sdp\n\n{sdp}\n\
             --uniqueBoundary\nContent-Disposition: recording-session\nContent-Type: application/rs-metadata+xml\n\n\
             {document}\n--uniqueBoundary--\n"
        )
    };
    let lines = |direction: &str| {
        let line = |port: u16, label: u8| {
            format!(
                "m=audio {port} RTP/AVP 8 101\na=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000\na={direction}\na=label:{label}\n"
            )
        };
        let (one, two) = (line(9, 0), line(9, 1));
        format!("v=0\no=- 9 9 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\n{one}{two}")
    };
    let pauses = |scenario: Scenario| {
        let again = |scenario: Scenario, direction: &str| {
            scenario
                .with_body(
                    "INVITE",
                    "Contact: <sip:src@[local_ip]:[local_port]>;+sip.src\n",
                    "application/sdp",
                    &lines(direction),
                )
                .may_get(100)
                .expect(200)
                .request("ACK")
                .pause_ms(300)
        };
        again(again(scenario, "inactive"), "sendonly")
    };
    let recorded = Client {
        headers: &contact(
            ";+sip.src",
            "Require: siprec\nX-Account-Sid: 1\nUser-Agent: drachtio-siprec-recording-server\n",
        ),
        kind: "multipart/mixed;boundary=uniqueBoundary",
        labels: &["0", "1"],
        body: &body,
        later: &pauses,
    }
    .record();
    recorded.assert_pair(("+15550001", "Caller"), ("+15550002", ""));
    let pauses = recorded.recording["pauses"].as_array().map(Vec::len);
    assert_eq!(pauses, Some(1), "{}", recorded.recording);
}

#[test]
fn a_party_change_as_netsapiens_has_it_is_another_recording_of_the_same_group() {
    let document = |session: &str, other: &str| {
        format!(
            "<recording xmlns='urn:ietf:params:xml:ns:recording:1'><datamode>complete</datamode>\
             <group group_id=\"g9\"/><session session_id=\"{session}\"><group-ref>g9</group-ref></session>\
             <participant participant_id=\"u\"><nameID aor=\"sip:100@ns\"/></participant>\
             <participant participant_id=\"v\"><nameID aor=\"sip:{other}@ns\"/></participant>\
             <stream stream_id=\"s1\" session_id=\"{session}\"><label>1</label></stream>\
             <stream stream_id=\"s2\" session_id=\"{session}\"><label>2</label></stream>\
             <participantstreamassoc participant_id=\"u\"><send>s1</send></participantstreamassoc>\
             <participantstreamassoc participant_id=\"v\"><send>s2</send></participantstreamassoc></recording>"
        )
    };
    let appliance = Appliance::start(&Setup {
        next: "record".to_owned(),
        record: "false",
        ..Setup::to_port(0)
    });
    // The first session ends by BYE, and the next one begins with whoever is there now.
    for (index, (session, other)) in [("n1", "201"), ("n2", "202")].into_iter().enumerate() {
        let streams = [Stream::new("1", 1), Stream::new("2", 2)];
        let sdp = description(1, &[&streams[0], &streams[1]], "sendonly");
        let body = trunkline_tests::siprec::multipart(&sdp, &document(session, other));
        let headers = contact(
            ";+sip.src",
            "Require: siprec\nUser-Agent: NetSapiens SiPBx\n",
        );
        let scenario = Scenario::caller("src")
            .with_body(
                "INVITE",
                &headers,
                trunkline_tests::siprec::MULTIPART,
                &body,
            )
            .may_get(100)
            .expect(200)
            .request("ACK")
            .pause_ms(700)
            .request("BYE")
            .expect(200);
        let name = format!("src{index}");
        let (sipp, ports) = start(&appliance, appliance.folder(), &name, scenario, 2);
        for (stream, port) in streams.iter().zip(&ports) {
            stream.party.speak_to(*port);
        }
        sipp.finish();
        for stream in streams {
            let _ = stream.party.finish();
        }
    }
    let recordings = appliance.api.wait_for_recordings(2);
    for (recording, other) in recordings.iter().rev().zip(["sip:201@ns", "sip:202@ns"]) {
        assert_eq!(recording["attributes"]["siprec.group"], "g9", "{recording}");
        assert_eq!(recording["participants"][1]["uri"], other, "{recording}");
    }
    let found = appliance.api.get("/v1/recordings?attr.siprec.group=g9");
    assert_eq!(found["items"].as_array().map(Vec::len), Some(2), "{found}");
}

#[test]
fn cucm_built_in_bridge_without_any_sign_of_siprec() {
    let recorded = Client {
        headers: "From: \"Agent\" <sip:4001@[local_ip];x-nearend;x-refci=27298698;x-nearenddevice=SEP0001>;tag=[pid]c[call_number]\n\
            Contact: <sip:4001@[local_ip]:[local_port]>;isFocus\nUser-Agent: Cisco-CUCM14.0\n",
        kind: "application/sdp",
        labels: &[""],
        body: &str::to_owned,
        later: &nothing_more,
    }
    .record();
    assert_heard("left", &recorded.wav.left, &recorded.sent[0]);
    let participant = &recorded.recording["participants"][0];
    assert_eq!(participant["name"], "Agent", "{}", recorded.recording);
    assert_eq!(
        recorded.recording["attributes"]["siprec.client"],
        "Cisco-CUCM14.0"
    );
}
