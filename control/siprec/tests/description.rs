//! A call as its recorder is told of it: what it knows after each document, and that every document is
//! valid by the schema.

use std::path::Path;
use std::process::Command;
use trunkline_siprec::Id;
use trunkline_siprec::describe::{Description, Media};
use trunkline_siprec::journal::Journal;
use trunkline_siprec::metadata::{DataMode, Metadata, NameId, Reason, Strictness, write};
use uuid::Uuid;

const CALLER: Uuid = Uuid::from_u128(10);
const CALLEE: Uuid = Uuid::from_u128(11);
const THIRD: Uuid = Uuid::from_u128(12);

fn at(second: u32) -> String {
    format!("2026-11-25T08:00:{second:02}.000Z")
}

fn named(user: &str) -> Vec<NameId> {
    vec![NameId {
        aor: format!("sip:{user}@example.com"),
        name: Some(format!("{user} <&> \"quoted\"")),
        language: Some("en".to_owned()),
    }]
}

fn call() -> Description {
    let mut call = Description::new(
        Some(Id::from_uuid(Uuid::from_u128(1))),
        Uuid::from_u128(2),
        &at(0),
        &at(1),
    );
    call.join(CALLER, named("alice"), Uuid::from_u128(20), "1", &at(0));
    call.join(CALLEE, named("bob"), Uuid::from_u128(21), "2", &at(1));
    call
}

/// A recorder that takes every document strictly and checks it against the schema.
#[derive(Default)]
struct Recorder {
    journal: Journal,
    cseq: u32,
}

impl Recorder {
    fn take(&mut self, document: &Metadata) {
        let text = write(document);
        validate(&text);
        self.cseq += 1;
        self.journal
            .apply(
                self.cseq,
                &at(self.cseq),
                text.as_bytes(),
                Strictness::Strict,
            )
            .expect("our documents have no deviation");
    }

    fn sends(&self, party: Uuid) -> Vec<Id> {
        let set = self.journal.state().streams_of(&Id::from_uuid(party));
        set.map(|set| set.send.clone()).unwrap_or_default()
    }

    fn receives(&self, party: Uuid) -> Vec<Id> {
        let set = self.journal.state().streams_of(&Id::from_uuid(party));
        set.map(|set| set.recv.clone()).unwrap_or_default()
    }
}

fn validate(document: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), document).unwrap();
    let output = Command::new("xmllint")
        .args(["--noout", "--nonet", "--schema"])
        .arg(folder.join("recording.xsd"))
        .arg(file.path())
        .output()
        .expect("xmllint (libxml2-utils) runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{document}");
}

/// Tells what is new and lets the recorder accept it.
fn tell(call: &mut Description, recorder: &mut Recorder) -> DataMode {
    let document = call.partial().expect("something is new");
    recorder.take(&document);
    call.accepted(&document);
    assert_eq!(call.partial(), None, "everything is known now");
    document.mode
}

#[test]
fn the_first_document_is_complete_and_the_next_ones_say_only_what_changed() {
    let (mut call, mut recorder) = (call(), Recorder::default());
    assert_eq!(tell(&mut call, &mut recorder), DataMode::Complete);
    assert_eq!(recorder.sends(CALLER), [Id::from_uuid(Uuid::from_u128(20))]);
    assert_eq!(
        recorder.receives(CALLER),
        [Id::from_uuid(Uuid::from_u128(21))]
    );

    call.set_media(
        CALLEE,
        Media {
            sends: false,
            receives: true,
        },
    );
    let partial = call.partial().unwrap();
    assert_eq!(partial.mode, DataMode::Partial);
    assert!(partial.participants.is_empty() && partial.sessions.is_empty());
    assert_eq!(tell(&mut call, &mut recorder), DataMode::Partial);
    assert!(recorder.sends(CALLEE).is_empty(), "held: bob sends nothing");
    assert!(recorder.receives(CALLER).is_empty());

    call.set_media(CALLEE, Media::BOTH);
    tell(&mut call, &mut recorder);
    assert_eq!(
        recorder.receives(CALLER).len(),
        1,
        "and again after the hold"
    );
}

#[test]
fn a_change_whose_message_was_refused_is_told_again() {
    let (mut call, mut recorder) = (call(), Recorder::default());
    tell(&mut call, &mut recorder);
    call.rename(CALLEE, named("robert"));
    let refused = call.partial().unwrap();
    assert_eq!(refused.participants.len(), 1);
    call.set_media(
        CALLER,
        Media {
            sends: false,
            receives: true,
        },
    );
    let second = call.partial().unwrap();
    assert_eq!(
        second.participants, refused.participants,
        "bob's new name is still news"
    );
    recorder.take(&second);
    call.accepted(&second);
    assert_eq!(call.partial(), None);
    let bob = Id::from_uuid(CALLEE);
    assert!(
        recorder.journal.state().participant(&bob).unwrap().names[0]
            .aor
            .contains("robert")
    );
}

#[test]
fn transfer_within_the_session_brings_a_participant_and_takes_one_away() {
    let (mut call, mut recorder) = (call(), Recorder::default());
    tell(&mut call, &mut recorder);
    call.leave(CALLEE, &at(20));
    call.join(THIRD, named("carol"), Uuid::from_u128(22), "3", &at(20));
    tell(&mut call, &mut recorder);
    let state = recorder.journal.state();
    assert_eq!(state.participants.len(), 3);
    let left = state
        .participant_sessions
        .iter()
        .find(|one| one.participant == Id::from_uuid(CALLEE))
        .unwrap();
    assert_eq!(left.times.until, Some(at(20)));
    assert_eq!(
        recorder.receives(CALLER),
        [Id::from_uuid(Uuid::from_u128(22))]
    );
    assert!(recorder.sends(CALLEE).is_empty());
}

#[test]
fn transfer_by_refer_ends_the_session_and_begins_one_in_the_same_group() {
    let (mut call, mut recorder) = (call(), Recorder::default());
    tell(&mut call, &mut recorder);
    let reason = Reason {
        text: "Call Transferred".to_owned(),
        protocol: Some("SIP".to_owned()),
        cause: Some("302".to_owned()),
    };
    call.stop(&at(30), Some(reason));
    call.next_session(Uuid::from_u128(3), &at(30));
    call.join(CALLER, named("alice"), Uuid::from_u128(20), "1", &at(30));
    call.join(THIRD, named("carol"), Uuid::from_u128(22), "2", &at(31));
    tell(&mut call, &mut recorder);
    let state = recorder.journal.state();
    assert_eq!(state.sessions.len(), 2);
    assert_eq!(state.sessions[0].stopped, Some(at(30)));
    assert_eq!(state.sessions[0].group, state.sessions[1].group);
    assert_eq!(state.session_recordings.len(), 2);
    assert_eq!(state.session_recordings[0].times.until, Some(at(30)));
}

#[test]
fn a_late_joiner_is_heard_by_all_and_three_party_calls_are_whole() {
    let (mut call, mut recorder) = (call(), Recorder::default());
    tell(&mut call, &mut recorder);
    call.join(THIRD, named("carol"), Uuid::from_u128(22), "3", &at(9));
    tell(&mut call, &mut recorder);
    for party in [CALLER, CALLEE, THIRD] {
        assert_eq!(
            (recorder.sends(party).len(), recorder.receives(party).len()),
            (1, 2)
        );
    }
}

#[test]
fn after_a_failover_the_new_recorder_gets_all_with_the_same_ids_and_the_gap() {
    let (mut call, mut first) = (call(), Recorder::default());
    tell(&mut call, &mut first);
    call.suspend_session(&at(10));
    call.resume_session(&at(12));
    let mut second = Recorder::default();
    assert_eq!(tell(&mut call, &mut second), DataMode::Complete);
    let (before, after) = (first.journal.state(), second.journal.state());
    assert_eq!(before.sessions[0].id, after.sessions[0].id);
    assert_eq!(before.participants, after.participants);
    assert_eq!(after.session_recordings[0].times.from, Some(at(12)));
}

#[test]
fn extensions_of_the_configuration_are_carried_and_broken_ones_refused() {
    let mut call = call();
    call.add_extensions(
        Some("<x:tenant xmlns:x=\"urn:example\">a &amp; b</x:tenant>"),
        Some("<x:queue xmlns:x=\"urn:example\"/>"),
    )
    .unwrap();
    let text = write(&call.complete());
    validate(&text);
    assert!(text.contains("a &amp; b</x:tenant>") && text.contains("<x:queue"));
    for broken in [
        "<a><b></a>",
        "</recording><recording>",
        "text",
        "<a/><b/>",
        "",
        "<participant participant_id='x'/>",
    ] {
        assert!(
            call.add_extensions(Some(broken), None).is_err(),
            "{broken:?}"
        );
    }
}
