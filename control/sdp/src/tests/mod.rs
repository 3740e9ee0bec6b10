//! What a relay's peers would notice: reading, judging, rewriting, mapping.

mod parsing;
mod properties;
mod rewriting;
mod sending;

use crate::Description;

/// Reads a description written with LF; panics with the reason where it is not readable.
fn read(text: &str) -> Description {
    Description::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A session part with an address, to put m-lines behind.
fn session(address: &str) -> String {
    let family = if address.contains(':') { "IP6" } else { "IP4" };
    format!("v=0\no=a 1 1 IN {family} {address}\ns=-\nc=IN {family} {address}\nt=0 0\n")
}
