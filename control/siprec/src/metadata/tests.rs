use super::*;
use crate::Id;
use proptest::prelude::*;
use uuid::Uuid;

fn id(number: u128) -> Id {
    Id::from_uuid(Uuid::from_u128(number))
}

fn two_parties(name: &str, aor: &str) -> Metadata {
    Metadata {
        groups: vec![Group {
            id: id(1),
            times: Association::default(),
            extensions: vec![],
        }],
        sessions: vec![Session {
            sip_session_ids: vec![
                "ab30317f1a784dc48ff824d0d3715d86;remote=47755a9de7794ba387653f2099600ef2".into(),
            ],
            group: Some(id(1)),
            started: Some("2026-11-25T08:00:00.000Z".into()),
            ..Session::new(id(2))
        }],
        participants: vec![Participant {
            id: id(3),
            names: vec![NameId {
                aor: aor.into(),
                name: Some(name.into()),
                language: Some("it".into()),
            }],
            extensions: vec![],
        }],
        streams: vec![Stream {
            id: id(4),
            session: Some(id(2)),
            label: Some("96".into()),
            extensions: vec![],
        }],
        session_recordings: vec![SessionRecording {
            session: id(2),
            times: Association::default(),
            extensions: vec![],
        }],
        participant_sessions: vec![ParticipantSession {
            participant: id(3),
            session: id(2),
            times: Association {
                from: Some("2026-11-25T08:00:00.000Z".into()),
                until: None,
            },
            params: vec![("sip.audio".into(), "true".into())],
            extensions: vec![],
        }],
        participant_streams: vec![ParticipantStreams {
            participant: id(3),
            send: vec![id(4)],
            recv: vec![],
            times: Association::default(),
            extensions: vec![],
        }],
        ..Metadata::default()
    }
}

#[test]
fn what_is_written_is_read_strictly_and_is_the_same() {
    let metadata = two_parties("Bob", "sip:bob@biloxi.example");
    let reading = read(write(&metadata).as_bytes(), Strictness::Strict).unwrap();
    assert_eq!(reading.metadata, metadata);
    assert_eq!(reading.dialect, Dialect::Rfc7865);
}

#[test]
fn a_hostile_display_name_stays_a_name() {
    let name = "</name></nameID><participant participant_id=\"x\"/> & ]]> <!-- \u{0}\u{b}\u{FFFE}";
    let aor = "sip:\"'><evil/>@h";
    let metadata = two_parties(name, aor);
    let reading = read(write(&metadata).as_bytes(), Strictness::Strict).unwrap();
    assert_eq!(reading.metadata.participants.len(), 1);
    let read_name = &reading.metadata.participants[0].names[0];
    assert_eq!(read_name.aor, aor);
    assert_eq!(
        read_name.name.as_deref(),
        Some(
            name.replace(['\u{0}', '\u{b}', '\u{FFFE}'], "\u{FFFD}")
                .as_str()
        )
    );
}

fn tolerant(text: &str) -> Reading {
    read(text.as_bytes(), Strictness::Tolerant).unwrap()
}

#[test]
fn the_draft_form_with_associations_inside_the_participant() {
    let reading = tolerant(
        "<?xml version='1.0'?><recording xmlns='urn:ietf:params:xml:ns:recording'>\
         <dataMode>complete</dataMode>\
         <session id='urn:uuid:00000000-0000-0000-0000-000000000002'><start-time>2010-12-16T23:41:07Z</start-time></session>\
         <participant id='p1' session='urn:uuid:00000000-0000-0000-0000-000000000002'>\
         <nameID aor='sip:bob@biloxi.example'><name xml:lang='it'>Bob</name></nameID><send>s1</send><recv>s2</recv></participant>\
         <stream id='s1' session='urn:uuid:00000000-0000-0000-0000-000000000002'><mode>separate</mode><label>96</label></stream>\
         </recording>",
    );
    assert_eq!(reading.dialect, Dialect::Draft);
    let metadata = reading.metadata;
    assert_eq!(
        metadata.participants[0].names[0].name.as_deref(),
        Some("Bob")
    );
    assert_eq!(metadata.participant_sessions.len(), 1);
    let set = metadata.streams_of(&metadata.participants[0].id).unwrap();
    assert_eq!((set.send.len(), set.recv.len()), (1, 1));
    assert_eq!(
        metadata.stream(&set.send[0]).unwrap().label.as_deref(),
        Some("96")
    );
    assert!(!reading.deviations.is_empty());
}

#[test]
fn prefixes_order_case_and_broken_base64_are_taken() {
    let reading = tolerant(
        "<tns:recording xmlns:tns='urn:ietf:params:xml:ns:recording:1'>\
         <tns:participantstreamassoc participant_id='AAAAAAAA\n  AAAAAAAAAAAAAw=='><tns:send>AAAAAAAAAAAAAAAAAAAABA==</tns:send></tns:participantstreamassoc>\
         <tns:stream stream_id='AAAAAAAAAAAAAAAAAAAABA==' session_id='AAAAAAAAAAAAAAAAAAAAAg=='><tns:label>1</tns:label></tns:stream>\
         <tns:participant participant_id='AAAAAAAAAAAAAAAAAAAAAw=='><tns:nameID aor='0301234567'/></tns:participant>\
         <tns:dataMode>PARTIAL</tns:dataMode></tns:recording>",
    );
    let metadata = &reading.metadata;
    assert_eq!(metadata.mode, DataMode::Partial);
    assert_eq!(metadata.participants[0].id, id(3));
    assert_eq!(metadata.streams_of(&id(3)).unwrap().send, [id(4)]);
    assert!(
        reading
            .deviations
            .iter()
            .any(|one| one.contains("out of order"))
    );
}

#[test]
fn a_stream_without_id_is_known_by_its_label_and_times_without_zone_are_kept() {
    let reading = tolerant(
        "<recording xmlns='urn:ietf:params:xml:ns:recording'><stream stream_id='' session_id='x'><label>4294967297</label></stream>\
         <session session_id='x'><start-time>2026-11-25T08:00:00</start-time></session></recording>",
    );
    assert_eq!(reading.metadata.streams[0].id.as_str(), "4294967297");
    assert_eq!(
        reading.metadata.sessions[0].started.as_deref(),
        Some("2026-11-25T08:00:00")
    );
    assert!(
        reading
            .deviations
            .iter()
            .any(|one| one.contains("RFC 3339"))
    );
}

#[test]
fn strict_names_the_first_deviation() {
    let error = read(b"<recording xmlns='urn:x'/>", Strictness::Strict).unwrap_err();
    assert!(matches!(error, MetadataError::Deviation(_)), "{error}");
}

#[test]
fn extensions_are_kept_with_their_text() {
    let reading = tolerant(
        "<recording xmlns='urn:ietf:params:xml:ns:recording:1'><session session_id='AAAAAAAAAAAAAAAAAAAAAg=='>\
         <apkt:callData xmlns:apkt='http://acme'><apkt:callingParty>true</apkt:callingParty></apkt:callData></session></recording>",
    );
    let extension = &reading.metadata.sessions[0].extensions[0];
    assert_eq!(extension.name, "callData");
    assert_eq!(extension.text, "true");
    assert!(
        extension.xml.starts_with("<apkt:callData") && extension.xml.ends_with("</apkt:callData>")
    );
}

#[test]
fn hostile_documents_are_refused_with_a_reason() {
    let deep = format!("<recording>{}", "<a>".repeat(1000));
    let wide = format!("<recording>{}</recording>", "<a/>".repeat(5000));
    let long = format!("<recording>{}</recording>", " ".repeat(1 << 20));
    let bomb = "<!DOCTYPE r [<!ENTITY a 'aaaa'>]><recording>&a;</recording>".to_owned();
    for (text, part) in [
        (deep, "deeper"),
        (wide, "too many"),
        (long, "more than"),
        (bomb, "document type"),
        ("<recording".to_owned(), "well-formed"),
        ("<recording><session></recording>".to_owned(), "well-formed"),
        (String::new(), "no element"),
        ("<html/>".to_owned(), "root"),
    ] {
        let error = read(text.as_bytes(), Strictness::Tolerant)
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{error:?} for {part}");
    }
}

#[test]
fn an_undefined_entity_stays_as_written() {
    let reading = tolerant(
        "<recording><participant participant_id='p'><nameID aor='sip:a&amp;b'><name>A &amp; B &#x20AC; &nbsp;</name></nameID></participant></recording>",
    );
    let name = &reading.metadata.participants[0].names[0];
    assert_eq!(name.aor, "sip:a&b");
    assert_eq!(name.name.as_deref(), Some("A & B € &nbsp;"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_names_survive_the_round_trip(name in "\\PC{0,40}", aor in "\\PC{1,40}") {
        prop_assume!(!name.trim().is_empty() && !aor.trim().is_empty());
        let metadata = two_parties(name.trim(), aor.trim());
        let reading = read(write(&metadata).as_bytes(), Strictness::Strict).unwrap();
        prop_assert_eq!(reading.metadata, metadata);
    }

    #[test]
    fn no_mutation_of_a_document_panics(at in 0usize..2000, byte in any::<u8>(), cut in 0usize..2000) {
        let mut bytes = write(&two_parties("Bob", "sip:bob@h")).into_bytes();
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(length - cut % length);
        let _ = read(&bytes, Strictness::Tolerant);
    }
}
