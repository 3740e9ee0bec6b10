//! Which party is heard on which m-line, for the families of senders met in the field, in our own words.

use trunkline_siprec::binding::{Habits, Line, Rule, bind};
use trunkline_siprec::metadata::{Strictness, read};

/// The users heard on each m-line and the rule, of a document and the labels of its SDP.
fn heard(document: &str, labels: &[Option<&str>], habits: Habits) -> Vec<(String, Option<Rule>)> {
    let reading = read(document.as_bytes(), Strictness::Tolerant).unwrap();
    let lines: Vec<Line> = labels
        .iter()
        .map(|label| Line {
            label: label.map(str::to_owned),
        })
        .collect();
    bind(&reading.metadata, reading.dialect, &lines, habits)
        .into_iter()
        .map(|bound| {
            let names: Vec<&str> = bound
                .participants
                .iter()
                .map(|id| {
                    reading.metadata.participant(id).unwrap().names[0]
                        .aor
                        .as_str()
                })
                .collect();
            (names.join("+"), bound.rule)
        })
        .collect()
}

fn plain(document: &str, labels: &[Option<&str>]) -> Vec<(String, Option<Rule>)> {
    heard(document, labels, Habits::default())
}

fn says(aor: &str, rule: Rule) -> (String, Option<Rule>) {
    (aor.to_owned(), Some(rule))
}

const PARTIES: &str = "<participant participant_id='pa'><nameID aor='sip:alice@h'/></participant><participant participant_id='pb'><nameID aor='sip:bob@h'/></participant>";
const STREAMS: &str = "<stream stream_id='s1' session_id='c'><label>1</label></stream><stream stream_id='s2' session_id='c'><label>2</label></stream>";

fn recording(body: &str) -> String {
    format!("<recording xmlns='urn:ietf:params:xml:ns:recording:1'>{body}</recording>")
}

#[test]
fn by_send_association_whatever_the_order_of_lines() {
    let document = recording(&format!(
        "{PARTIES}{STREAMS}<participantstreamassoc participant_id='pa'><send>s1</send><recv>s2</recv></participantstreamassoc>\
         <participantstreamassoc participant_id='pb'><send>s2</send><recv>s1</recv></participantstreamassoc>"
    ));
    assert_eq!(
        plain(&document, &[Some("2"), Some("1")]),
        [
            says("sip:bob@h", Rule::SendAssociation),
            says("sip:alice@h", Rule::SendAssociation)
        ],
        "labels bind, not the order"
    );
}

#[test]
fn crossed_send_and_receive_of_a_sender_known_for_it() {
    let document = recording(&format!(
        "{PARTIES}{STREAMS}<participantstreamassoc participant_id='pa'><send>s2</send><recv>s1</recv></participantstreamassoc>\
         <participantstreamassoc participant_id='pb'><send>s1</send><recv>s2</recv></participantstreamassoc>"
    ));
    let crossed = heard(&document, &[Some("1"), Some("2")], Habits { crossed: true });
    assert_eq!(crossed[0].0, "sip:alice@h");
    assert_eq!(crossed[1].0, "sip:bob@h");
}

#[test]
fn by_sends_inside_the_participant() {
    let document = "<recording xmlns='urn:ietf:params:xml:ns:recording'>\
        <participant id='pa' session='c'><nameID aor='sip:alice@h'/><send>s1</send></participant>\
        <participant id='pb' session='c'><nameID aor='sip:bob@h'/><send>s2</send></participant>\
        <stream id='s1' session='c'><label>a_leg</label></stream><stream id='s2' session='c'><label>b_leg</label></stream></recording>";
    assert_eq!(
        plain(document, &[Some("a_leg"), Some("b_leg")]),
        [
            says("sip:alice@h", Rule::EmbeddedSend),
            says("sip:bob@h", Rule::EmbeddedSend)
        ]
    );
}

#[test]
fn by_who_does_not_receive_it() {
    let document = recording(&format!(
        "{PARTIES}{STREAMS}<participantstreamassoc participant_id='pa'><recv>s2</recv></participantstreamassoc>\
         <participantstreamassoc participant_id='pb'><recv>s1</recv></participantstreamassoc>"
    ));
    assert_eq!(
        plain(&document, &[Some("1"), Some("2")]),
        [
            says("sip:alice@h", Rule::NotReceived),
            says("sip:bob@h", Rule::NotReceived)
        ]
    );
}

#[test]
fn by_label_order_with_big_numbers() {
    assert_eq!(
        plain(
            &recording(PARTIES),
            &[Some("4294967310"), Some("4294967298")]
        ),
        [
            says("sip:bob@h", Rule::LabelOrder),
            says("sip:alice@h", Rule::LabelOrder)
        ]
    );
}

#[test]
fn by_an_extension_that_names_the_caller() {
    let document = recording(&format!(
        "<session session_id='c'><x:callData xmlns:x='urn:x'><x:callingParty>bob@h</x:callingParty></x:callData></session>{PARTIES}"
    ));
    assert_eq!(
        plain(&document, &[Some("1"), Some("2")]),
        [
            says("sip:bob@h", Rule::Extension),
            says("sip:alice@h", Rule::Extension)
        ]
    );
}

#[test]
fn one_line_for_all_is_everybody() {
    assert_eq!(
        plain(&recording(PARTIES), &[None]),
        [says("sip:alice@h+sip:bob@h", Rule::Order)]
    );
    let document = recording(&format!(
        "{PARTIES}<stream stream_id='s1'><label>1</label></stream><stream stream_id='s2'><label>1</label></stream>\
         <participantstreamassoc participant_id='pa'><send>s1</send></participantstreamassoc>\
         <participantstreamassoc participant_id='pb'><send>s2</send></participantstreamassoc>"
    ));
    assert_eq!(
        plain(&document, &[Some("1")]),
        [says("sip:alice@h+sip:bob@h", Rule::SendAssociation)],
        "several streams on one m-line"
    );
}

#[test]
fn lines_without_metadata_stay_unbound_and_streams_that_never_come_do_no_harm() {
    assert_eq!(
        plain(&recording(""), &[Some("1"), None]),
        [(String::new(), None), (String::new(), None)]
    );
    let document = recording(&format!(
        "{PARTIES}{STREAMS}<participantstreamassoc participant_id='pa'><send>s2</send></participantstreamassoc>"
    ));
    assert_eq!(
        plain(&document, &[Some("2")]),
        [says("sip:alice@h", Rule::SendAssociation)]
    );
}

#[test]
fn who_left_is_heard_no_more() {
    let document = recording(&format!(
        "{PARTIES}<stream stream_id='s1'><label>1</label></stream>\
         <participantsessionassoc participant_id='pa' session_id='c'><disassociate-time>2026-11-25T08:00:00Z</disassociate-time></participantsessionassoc>\
         <participantsessionassoc participant_id='pb' session_id='c'/>\
         <participantstreamassoc participant_id='pa'><send>s1</send></participantstreamassoc>\
         <participantstreamassoc participant_id='pb'><send>s1</send></participantstreamassoc>"
    ));
    assert_eq!(
        plain(&document, &[Some("1")]),
        [says("sip:bob@h", Rule::SendAssociation)]
    );
}
