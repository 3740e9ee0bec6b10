//! End-to-end tests: what both parties hear and what is recorded, with real peers on loopback.
//!
//! Each test starts its own [`Appliance`] (`trunkline up` in a directory of its own, on free ports) and
//! brings its peers: SIPp ([`sipp`]), baresip ([`baresip`]), rtpgen ([`rtpgen`]) or a hand ([`hand`]) that
//! sends what the test writes. The referees
//! are tshark ([`capture`]) for what was on the wire and the API ([`api`]) for what was recorded.
//! Sound is judged with a G.711 of its own ([`g711`]), written apart from the product's.
#![forbid(unsafe_code)]

pub mod api;
pub mod appliance;
pub mod baresip;
pub mod binaries;
pub mod capture;
pub mod classic;
pub mod flood;
pub mod g711;
pub mod hand;
pub mod kamailio;
pub mod nameserver;
pub mod parts;
pub mod party;
pub mod pcap;
pub mod ports;
pub mod process;
pub mod receiver;
pub mod rtpgen;
pub mod scenario;
pub mod sipp;
pub mod siprec;
pub mod sound;

pub use appliance::Appliance;

/// Says loudly why a test cannot run here; the caller returns.
pub fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
}

/// Whether we are root.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether a program is installed.
#[must_use]
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
