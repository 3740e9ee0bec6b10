//! Calls in packet captures of any origin: pcap and pcapng, link and network layers down to UDP
//! datagrams and TCP streams, and the SIP dialogs in them. Whatever the bytes, nothing panics and
//! memory stays bounded.
#![forbid(unsafe_code)]

mod calls;
mod capture_file;
mod layers;
mod streams;

pub use calls::{Call, Calls, Description, Media, set_format};
pub use capture_file::{CaptureFile, Record};
pub use layers::{Datagram, Reassembler, Segment, Transport};
pub use streams::Streams;

/// The calls whose SIP is in a capture, in order of appearance; `None` when the bytes are neither
/// a pcap nor a pcapng.
#[must_use]
pub fn find_calls(bytes: &[u8]) -> Option<Vec<Call>> {
    let file = CaptureFile::new(bytes)?;
    let mut reassembler = Reassembler::default();
    let mut streams = Streams::default();
    let mut calls = Calls::default();
    for record in file {
        match reassembler.take(&record) {
            Some(Transport::Datagram(datagram)) => calls.take(datagram.utc_ns, &datagram.payload),
            Some(Transport::Segment(segment)) => {
                streams.take(&segment, |message| calls.take(segment.utc_ns, message));
            }
            None => {}
        }
    }
    Some(calls.list)
}
