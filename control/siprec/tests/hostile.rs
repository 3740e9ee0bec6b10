//! Whatever a sender writes, nothing panics: mutations of real bodies by a seed, as the fuzz target does without end.

use trunkline_siprec::journal::Journal;
use trunkline_siprec::metadata::Strictness;
use trunkline_siprec::multipart;

/// Numbers that look like chance (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap_or(0)
    }
}

const BODY: &str = "--b\r\nContent-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n\r\n--b\r\n\
    Content-Type: application/rs-metadata+xml\r\nContent-Disposition: recording-session\r\n\r\n\
    <?xml version=\"1.0\"?><recording xmlns='urn:ietf:params:xml:ns:recording:1'><datamode>partial</datamode>\
    <group group_id=\"g\"/><session session_id=\"s\"><group-ref>g</group-ref></session>\
    <participant participant_id=\"p\"><nameID aor=\"sip:a@b\"><name xml:lang=\"en\">A &amp; &#66;</name></nameID></participant>\
    <stream stream_id=\"t\" session_id=\"s\"><label>1</label></stream>\
    <participantstreamassoc participant_id=\"p\"><send>t</send></participantstreamassoc></recording>\r\n--b--\r\n";
const KIND: &str = "multipart/mixed;boundary=b";
const PIECES: [&[u8]; 10] = [
    b"--b",
    b"\r\n\r\n",
    b"<",
    b"&#x0;",
    b"]]>",
    b"<!DOCTYPE x [",
    b"\xff\xfe",
    b"multipart/mixed;boundary=b",
    b"<a><a><a><a>",
    b"\"",
];

fn mutated(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = BODY.as_bytes().to_vec();
    for _ in 0..=dice.below(6) {
        let at = dice.below(bytes.len());
        match dice.below(5) {
            0 => bytes[at] = dice.below(256).to_le_bytes()[0],
            1 => bytes.truncate(at.max(1)),
            2 => {
                let piece = PIECES[dice.below(PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            3 => {
                let end = (at + dice.below(40)).min(bytes.len());
                bytes.drain(at..end);
                if bytes.is_empty() {
                    bytes.push(b'<');
                }
            }
            _ => {
                let end = (at + dice.below(200)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

#[test]
fn nothing_that_is_written_panics_and_what_is_put_in_its_place_is_read_again() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut journal = Journal::default();
    for round in 0..20_000_u32 {
        let body = mutated(&mut dice);
        let read = multipart::read(KIND, &body);
        let replaced = multipart::with_sdp(KIND, &body, b"v=1");
        if let (Ok(read), Some(replaced)) = (&read, &replaced)
            && read.sdp.as_ref().is_some_and(|sdp| !sdp.is_empty())
        {
            let again = multipart::read(KIND, replaced).unwrap();
            assert_eq!(again.sdp.as_deref(), Some(&b"v=1"[..]));
            assert_eq!(again.metadata, read.metadata);
        }
        let document = read.ok().and_then(|read| read.metadata).unwrap_or(body);
        let strictness = match round % 2 {
            0 => Strictness::Tolerant,
            _ => Strictness::Strict,
        };
        let _ = journal.apply(round, "2026-11-28T01:02:03Z", &document, strictness);
        if round % 500 == 0 {
            journal = Journal::default();
        }
    }
}
