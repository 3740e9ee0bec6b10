//! Packets out of capture files: pcap and pcapng, down to the UDP datagram.

mod capture_file;
mod layers;

pub(crate) use capture_file::{CaptureFile, Record};
pub(crate) use layers::{Datagram, Reassembler};
