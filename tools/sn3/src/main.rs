//! The sn3 command: what is in a capture, as text, as sound, as packets.
#![forbid(unsafe_code)]

/// `println!` that survives a reader who leaves.
macro_rules! say {
    ($($argument:tt)*) => { $crate::output::say(&format!($($argument)*)) };
}

mod batch;
mod export;
mod import;
mod info;
mod listing;
mod output;
mod part;
mod pcap;
mod played;
mod plot;
mod query;
mod source;
mod verify;
mod wav;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Reads SN3 captures: a segment of the appliance, a call's SN3, or a classic SN1, SN2 or SN3 blob.
#[derive(Parser)]
#[command(
    name = "sn3",
    version,
    after_help = "Example: sn3 wav call.sn3 -o call.wav\n\n\
                  Exit codes: 0 = done, 1 = damaged, unreadable or not possible, 2 = wrong usage."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tell what a capture holds: streams, losses, jitter, codecs, keys pressed.
    Info(info::Arguments),
    /// Write the call as a WAV: the caller left, the callee right.
    Wav(wav::Arguments),
    /// Write the packets as a pcap that Wireshark and tshark decode as RTP.
    Pcap(pcap::Arguments),
    /// Check files byte by byte.
    Verify(verify::Arguments),
    /// Write one call as a classic SN3 blob.
    Export(export::Arguments),
    /// Draw waveform and spectrogram, with marks for losses, pauses and keys.
    Plot(plot::Arguments),
    /// Make SN3s of the calls in a pcap or pcapng.
    Import(import::Arguments),
}

/// Arguments that cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUsage(String);

/// How a command that did its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing to complain about.
    Fine,
    /// Damage, or something that could not be converted; said on stderr.
    Flawed,
    /// The arguments do not fit the file.
    WrongUsage,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Info(arguments) => info::run(&arguments),
        Command::Wav(arguments) => wav::run(&arguments),
        Command::Pcap(arguments) => pcap::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Plot(arguments) => plot::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
    };
    match result {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Flawed) => ExitCode::from(1),
        Ok(Outcome::WrongUsage) => ExitCode::from(2),
        Err(error) => {
            eprintln!("sn3: {error:#}");
            let wrong_usage = error.downcast_ref::<WrongUsage>().is_some();
            ExitCode::from(if wrong_usage { 2 } else { 1 })
        }
    }
}
