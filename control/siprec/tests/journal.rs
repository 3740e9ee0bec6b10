//! A recording session's state over its documents.

use trunkline_siprec::Id;
use trunkline_siprec::journal::{Journal, Outcome, Quarantine};
use trunkline_siprec::limits::REVISIONS_MAX;
use trunkline_siprec::metadata::Strictness::Tolerant;

const A: &str = "AAAAAAAAAAAAAAAAAAAAAQ==";
const B: &str = "AAAAAAAAAAAAAAAAAAAAAg==";
const C: &str = "AAAAAAAAAAAAAAAAAAAAAw==";
const AT: &str = "2026-11-25T08:00:00.000Z";

fn document(mode: &str, body: &str) -> String {
    format!(
        "<recording xmlns='urn:ietf:params:xml:ns:recording:1'><datamode>{mode}</datamode>{body}</recording>"
    )
}

fn apply(journal: &mut Journal, mode: &str, body: &str) {
    let cseq = u32::try_from(journal.revisions().len()).unwrap() + 1;
    journal
        .apply(cseq, AT, document(mode, body).as_bytes(), Tolerant)
        .unwrap();
}

fn id(text: &str) -> Id {
    Id::read(text).unwrap()
}

fn participant(id: &str, aor: &str) -> String {
    format!("<participant participant_id='{id}'><nameID aor='{aor}'/></participant>")
}

#[test]
fn a_partial_document_adds_and_changes_and_a_complete_one_replaces() {
    let mut journal = Journal::default();
    apply(&mut journal, "complete", &participant(A, "sip:dummy"));
    apply(
        &mut journal,
        "partial",
        &(participant(A, "sip:real") + &participant(B, "sip:b")),
    );
    let state = journal.state();
    assert_eq!(state.participants.len(), 2);
    assert_eq!(state.participant(&id(A)).unwrap().names[0].aor, "sip:real");
    apply(&mut journal, "complete", &participant(C, "sip:c"));
    assert_eq!(journal.state().participants.len(), 1);
}

#[test]
fn send_and_receive_are_replaced_as_a_whole() {
    let mut journal = Journal::default();
    let set = |sets: &str| {
        format!("<participantstreamassoc participant_id='{A}'>{sets}</participantstreamassoc>")
    };
    apply(
        &mut journal,
        "complete",
        &set(&format!("<send>{B}</send><recv>{C}</recv>")),
    );
    apply(&mut journal, "partial", &set(&format!("<recv>{C}</recv>")));
    let state = journal.state().streams_of(&id(A)).unwrap();
    assert!(state.send.is_empty(), "absent is: does not send");
    assert_eq!(state.recv, [id(C)]);
}

#[test]
fn a_stop_time_takes_all_participants_out() {
    let mut journal = Journal::default();
    let join = |who: &str| {
        format!(
            "<participantsessionassoc participant_id='{who}' session_id='{C}'><associate-time>{AT}</associate-time></participantsessionassoc>"
        )
    };
    apply(
        &mut journal,
        "complete",
        &format!("<session session_id='{C}'/>{}{}", join(A), join(B)),
    );
    apply(
        &mut journal,
        "partial",
        &format!("<session session_id='{C}'><stop-time>2026-11-25T08:01:00Z</stop-time></session>"),
    );
    assert!(
        journal
            .state()
            .participant_sessions
            .iter()
            .all(|one| one.times.until.as_deref() == Some("2026-11-25T08:01:00Z"))
    );
}

#[test]
fn who_comes_back_is_in_again() {
    let mut journal = Journal::default();
    let times = |inner: &str| {
        format!(
            "<participantsessionassoc participant_id='{A}' session_id='{C}'>{inner}</participantsessionassoc>"
        )
    };
    apply(
        &mut journal,
        "complete",
        &times("<associate-time>2026-11-25T08:00:00Z</associate-time>"),
    );
    apply(
        &mut journal,
        "partial",
        &times("<disassociate-time>2026-11-25T08:01:00Z</disassociate-time>"),
    );
    assert!(
        journal.state().participant_sessions[0]
            .times
            .until
            .is_some()
    );
    apply(
        &mut journal,
        "partial",
        &times("<associate-time>2026-11-25T08:02:00Z</associate-time>"),
    );
    assert!(
        journal.state().participant_sessions[0]
            .times
            .until
            .is_none()
    );
}

#[test]
fn bad_metadata_is_quarantined_and_the_state_stays() {
    let mut journal = Journal::default();
    apply(&mut journal, "complete", &participant(A, "sip:a"));
    let before = journal.state().clone();
    let error = journal
        .apply(2, AT, b"<recording><participant", Tolerant)
        .unwrap_err();
    assert!(matches!(error, Quarantine::Unreadable(_)));
    assert_eq!(journal.state(), &before);
    let last = journal.revisions().last().unwrap();
    assert_eq!(last.document, "<recording><participant");
    assert!(matches!(&last.outcome, Outcome::Quarantined { why } if why.contains("byte")));
    apply(&mut journal, "partial", &participant(B, "sip:b"));
    assert_eq!(
        journal.state().participants.len(),
        2,
        "the next good one counts"
    );
}

#[test]
fn one_uuid_for_two_things_is_an_error_and_an_unknown_id_is_not() {
    let mut journal = Journal::default();
    apply(&mut journal, "complete", &participant(A, "sip:a"));
    let twice = document(
        "partial",
        &format!("<stream stream_id='{A}' session_id='{B}'><label>1</label></stream>"),
    );
    let error = journal
        .apply(2, AT, twice.as_bytes(), Tolerant)
        .unwrap_err();
    assert!(
        matches!(
            error,
            Quarantine::TwoThings {
                was: "participant",
                now: "stream",
                ..
            }
        ),
        "{error}"
    );
    apply(
        &mut journal,
        "partial",
        &format!(
            "<participantstreamassoc participant_id='{C}'><send>{B}</send></participantstreamassoc>"
        ),
    );
    // Short ids of older senders are scoped to their element.
    apply(
        &mut journal,
        "complete",
        "<participant id='1'><nameID aor='sip:a'/></participant><stream id='1'><label>1</label></stream>",
    );
}

#[test]
fn every_earlier_state_can_be_read_back() {
    let mut journal = Journal::default();
    apply(&mut journal, "complete", &participant(A, "sip:a"));
    apply(&mut journal, "partial", &participant(B, "sip:b"));
    let _ = journal.apply(9, AT, b"garbage", Tolerant);
    apply(&mut journal, "partial", &participant(C, "sip:c"));
    let counts: Vec<usize> = (1..=4)
        .map(|number| journal.state_after(number).unwrap().participants.len())
        .collect();
    assert_eq!(counts, [1, 2, 2, 3]);
    assert!(journal.state_after(5).is_none());
    assert_eq!(journal.state_after(4).as_ref(), Some(journal.state()));
}

#[test]
fn a_flood_of_documents_is_folded_and_nothing_known_is_lost() {
    let mut journal = Journal::default();
    apply(&mut journal, "complete", &participant(A, "sip:a"));
    for number in 0..REVISIONS_MAX + 20 {
        if number % 3 == 0 {
            let _ = journal.apply(1, AT, b"<broken", Tolerant);
        } else {
            apply(
                &mut journal,
                "partial",
                &participant(B, &format!("sip:b{number}")),
            );
        }
    }
    assert_eq!(journal.revisions().len(), REVISIONS_MAX);
    assert!(journal.folded() > 0);
    let last = journal.revisions().last().unwrap().number;
    assert_eq!(
        journal.state_after(last).unwrap().participants,
        journal.state().participants
    );
}
