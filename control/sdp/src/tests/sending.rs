use super::{read, session};
use crate::{Codec, Media, Sendable, sendable};

fn media(lines: &str) -> Media {
    read(&format!("{}{lines}", session("192.0.2.1")))
        .media
        .remove(0)
}

fn pairs(list: &[Sendable]) -> Vec<(u8, u8, Codec)> {
    list.iter()
        .map(|entry| (entry.pt, entry.to_pt, entry.codec))
        .collect()
}

#[test]
fn the_receivers_numbers_pass_unchanged() {
    let caller =
        media("m=audio 1 RTP/AVP 0 8 101\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\n");
    let callee =
        media("m=audio 1 RTP/AVP 8 101\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-16\n");
    let from_caller = sendable(Some(&caller), Some(&callee));
    assert_eq!(
        pairs(&from_caller),
        [(8, 8, Codec::Pcma), (101, 101, Codec::TelephoneEvent)]
    );
    assert_eq!(from_caller[1].fmtp, "0-15", "the sender's own parameters");
    let from_callee = sendable(Some(&callee), Some(&caller));
    assert_eq!(
        pairs(&from_callee),
        [
            (0, 0, Codec::Pcmu),
            (8, 8, Codec::Pcma),
            (101, 101, Codec::TelephoneEvent)
        ]
    );
}

#[test]
fn an_answer_that_renumbers_is_mapped_for_those_who_use_their_own_number() {
    let caller = media(
        "m=audio 1 RTP/AVP 96 101\na=rtpmap:96 opus/48000/2\na=rtpmap:101 telephone-event/48000\n",
    );
    let callee = media(
        "m=audio 1 RTP/AVP 111 97\na=rtpmap:111 OPUS/48000/2\na=rtpmap:97 telephone-event/48000\n",
    );
    // By the book the caller sends 111; if it sends its own 96, the callee still gets 111.
    assert_eq!(
        pairs(&sendable(Some(&caller), Some(&callee))),
        [
            (111, 111, Codec::Opus),
            (97, 97, Codec::TelephoneEvent),
            (96, 111, Codec::Opus),
            (101, 97, Codec::TelephoneEvent)
        ]
    );
}

#[test]
fn a_number_in_use_is_not_mapped_to_another_encoding() {
    let caller = media("m=audio 1 RTP/AVP 96\na=rtpmap:96 opus/48000/2\n");
    let callee = media(
        "m=audio 1 RTP/AVP 97 96\na=rtpmap:97 opus/48000/2\na=rtpmap:96 telephone-event/48000\n",
    );
    assert_eq!(
        pairs(&sendable(Some(&caller), Some(&callee))),
        [(97, 97, Codec::Opus), (96, 96, Codec::TelephoneEvent)]
    );
}

#[test]
fn clocks_and_channels_tell_encodings_apart() {
    let caller = media("m=audio 1 RTP/AVP 96 97\na=rtpmap:96 L16/16000\na=rtpmap:97 L16/16000/2\n");
    let callee = media("m=audio 1 RTP/AVP 98\na=rtpmap:98 L16/16000/2\n");
    let list = sendable(Some(&caller), Some(&callee));
    assert_eq!(pairs(&list), [(98, 98, Codec::L16), (97, 98, Codec::L16)]);
    assert_eq!((list[0].clock_hz, list[0].channels), (16000, 2));
}

#[test]
fn one_side_alone_is_taken_at_its_word() {
    let caller = media("m=audio 1 RTP/AVP 0 9\n");
    assert_eq!(
        pairs(&sendable(None, Some(&caller))),
        [(0, 0, Codec::Pcmu), (9, 9, Codec::G722)]
    );
    assert_eq!(pairs(&sendable(Some(&caller), None)).len(), 2);
    assert_eq!(sendable(None, None), []);
}
