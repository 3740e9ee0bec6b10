//! SIP messages out of TCP streams: segments put in order, messages told by their Content-Length
//! (RFC 3261 section 18.3).

use crate::layers::Segment;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

/// Directions of connections that are followed at a time.
const STREAMS_MAX: usize = 1_024;
/// Bytes of one direction that wait for the rest of a message, or for a segment before them.
const WAITING_MAX: usize = 64 * 1024;
/// Longest name of a method.
const METHOD_MAX: usize = 32;

/// One direction of a connection.
#[derive(Debug, Default)]
struct Stream {
    /// Sequence number of the byte to come; `None` before the first segment.
    next: Option<u32>,
    /// In order, from a message's first byte on.
    bytes: Vec<u8>,
    /// Segments that came before their turn, by their distance from the first byte ever.
    early: BTreeMap<u64, Vec<u8>>,
    early_bytes: usize,
    /// Distance of `next` from the first byte ever.
    taken: u64,
}

/// Follows connections.
#[derive(Debug, Default)]
pub struct Streams {
    by_ends: HashMap<(SocketAddr, SocketAddr), Stream>,
}

impl Streams {
    /// Takes a segment and hands over the messages that it completes.
    pub fn take(&mut self, segment: &Segment<'_>, mut message: impl FnMut(&[u8])) {
        let ends = (segment.source, segment.destination);
        if self.by_ends.len() >= STREAMS_MAX && !self.by_ends.contains_key(&ends) {
            self.by_ends.clear();
        }
        let stream = self.by_ends.entry(ends).or_default();
        if segment.begins {
            *stream = Stream {
                next: Some(segment.sequence.wrapping_add(1)),
                ..Stream::default()
            };
        }
        if !segment.payload.is_empty() {
            stream.add(segment.sequence, &segment.payload);
            stream.hand_over(&mut message);
        }
        if segment.ends {
            self.by_ends.remove(&ends);
        }
    }
}

impl Stream {
    fn add(&mut self, sequence: u32, payload: &[u8]) {
        let next = *self.next.get_or_insert(sequence);
        let ahead = i64::from(sequence.wrapping_sub(next) as i32);
        if ahead <= 0 {
            // What was sent again is known already.
            let known = ahead.unsigned_abs() as usize;
            self.append(payload.get(known..).unwrap_or(&[]));
        } else {
            let at = self.taken + ahead as u64;
            let before = self.early.insert(at, payload.to_vec());
            self.early_bytes += payload.len();
            self.early_bytes -= before.map_or(0, |before| before.len());
        }
        if self.early_bytes > WAITING_MAX
            && let Some((&at, _)) = self.early.first_key_value()
        {
            // The segment before them was not captured: go on behind it, at the next message.
            self.bytes.clear();
            let skipped = at.saturating_sub(self.taken);
            self.advance(skipped);
        }
        while let Some(entry) = self.early.first_entry()
            && *entry.key() <= self.taken
        {
            let (at, early) = entry.remove_entry();
            self.early_bytes = self.early_bytes.saturating_sub(early.len());
            let known = (self.taken - at) as usize;
            self.append(early.get(known..).unwrap_or(&[]));
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.advance(bytes.len() as u64);
    }

    fn advance(&mut self, bytes: u64) {
        self.taken += bytes;
        self.next = self.next.map(|next| next.wrapping_add(bytes as u32));
    }

    fn hand_over(&mut self, message: &mut impl FnMut(&[u8])) {
        let mut rest = &self.bytes[..];
        loop {
            let blank = rest.iter().take_while(|byte| b"\r\n".contains(byte));
            rest = &rest[blank.count()..];
            let Some(length) = message_length(rest) else {
                break;
            };
            let Some(whole) = rest.get(..length) else {
                break;
            };
            message(whole);
            rest = &rest[length..];
        }
        let done = self.bytes.len() - rest.len();
        self.bytes.drain(..done);
        if self.bytes.len() > WAITING_MAX || !may_be_sip(&self.bytes) {
            // Not SIP, or captured from its middle on: a later segment may begin with a message.
            self.bytes.clear();
        }
    }
}

/// Whether bytes may become a SIP message, as far as their first line tells.
fn may_be_sip(bytes: &[u8]) -> bool {
    if let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        return bytes.starts_with(b"SIP/2.0 ") || bytes[..end].ends_with(b" SIP/2.0");
    }
    let start = &bytes[..bytes.len().min(METHOD_MAX)];
    let method = start.split(|byte| *byte == b' ').next().unwrap_or(start);
    let complete = method.len() < METHOD_MAX;
    complete && method.iter().all(|byte| byte.is_ascii_uppercase()) || start.starts_with(b"SIP/")
}

/// Length of the message that the bytes begin with, once its headers are complete.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim();
        let wanted = name.eq_ignore_ascii_case("Content-Length") || name.eq_ignore_ascii_case("l");
        wanted.then(|| value.trim().parse::<usize>().ok()).flatten()
    });
    end.checked_add(length.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    const FIRST: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 3\r\n\r\nabc";
    const SECOND: &[u8] = b"SIP/2.0 200 OK\r\nl: 0\r\n\r\n";

    fn segment(sequence: u32, payload: &[u8], begins: bool) -> Segment<'_> {
        Segment {
            utc_ns: 0,
            source: ([192, 0, 2, 1], 5_060).into(),
            destination: ([192, 0, 2, 2], 5_060).into(),
            sequence,
            begins,
            ends: false,
            payload: Cow::Borrowed(payload),
        }
    }

    fn messages(parts: &[(u32, &[u8], bool)]) -> Vec<Vec<u8>> {
        let mut streams = Streams::default();
        let mut messages = Vec::new();
        for &(sequence, payload, begins) in parts {
            let segment = segment(sequence, payload, begins);
            streams.take(&segment, |message| messages.push(message.to_vec()));
        }
        messages
    }

    #[test]
    fn messages_are_found_however_they_were_cut_and_repeated() {
        let all = [FIRST, b"\r\n\r\n", SECOND].concat();
        let wanted = [FIRST.to_vec(), SECOND.to_vec()];
        // The numbers wrap in the middle.
        let start = u32::MAX - 20;
        for size in 1..all.len() {
            let mut parts: Vec<(u32, &[u8], bool)> = vec![(start.wrapping_sub(1), b"", true)];
            for (index, part) in all.chunks(size).enumerate() {
                parts.push((start.wrapping_add((index * size) as u32), part, false));
            }
            assert_eq!(messages(&parts), wanted, "cut every {size} bytes");
            let mut swapped = parts.clone();
            for pair in swapped[1..].chunks_exact_mut(2) {
                pair.swap(0, 1);
            }
            assert_eq!(messages(&swapped), wanted, "swapped every {size} bytes");
            let again: Vec<_> = parts
                .iter()
                .flat_map(|&part| [part, part])
                .skip(1)
                .collect();
            assert_eq!(messages(&again), wanted, "twice every {size} bytes");
        }
    }

    #[test]
    fn a_stream_whose_beginning_was_not_captured_is_read_from_the_next_message() {
        let parts: [(u32, &[u8], bool); 3] = [
            (100, b"c\r\na=sendrecv\r\n", false),
            (115, FIRST, false),
            (115 + FIRST.len() as u32, SECOND, false),
        ];
        assert_eq!(messages(&parts), [FIRST.to_vec(), SECOND.to_vec()]);
    }

    #[test]
    fn a_hole_in_the_stream_costs_the_message_it_is_in() {
        let noise = vec![b'A'; 1_000];
        let mut parts: Vec<(u32, &[u8], bool)> = vec![(0, b"", true), (1, &FIRST[..10], false)];
        for n in 0..200 {
            parts.push((5_000 + n * 1_000, &noise, false));
        }
        parts.push((205_000, b"\0", false));
        parts.push((205_001, SECOND, false));
        assert_eq!(messages(&parts), [SECOND.to_vec()]);
    }
}
