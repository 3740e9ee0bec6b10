//! The bare loop ([`trunkline_bench::bare_loop`]) as a process of its own, as the others are.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use trunkline_bench::bare_loop::{Way, relay};

/// The kernel may let go of the ports of a relay just killed a little late.
const BIND: Duration = Duration::from_secs(2);

/// Options of the hidden subcommand `bare`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Our address.
    #[arg(long)]
    address: IpAddr,
    /// Our first port; the two parties of call c send to 4 c and 4 c + 2 above it.
    #[arg(long)]
    port: u16,
    /// The parties' address.
    #[arg(long)]
    parties: Ipv4Addr,
    /// Port of the first caller.
    #[arg(long)]
    callers: u16,
    /// Port of the first callee.
    #[arg(long)]
    callees: u16,
    /// Ports from one call's to the next one's.
    #[arg(long)]
    step: u16,
    /// Calls.
    #[arg(long)]
    calls: u16,
}

/// Relays until it is killed.
///
/// # Errors
/// A port cannot be bound.
pub fn run(options: &Options) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let sockets = bind(options)?;
    let far = (0..options.calls).flat_map(|call| {
        [options.callers, options.callees].map(|first| {
            let port = first + call * options.step;
            SocketAddrV4::new(options.parties, port)
        })
    });
    // Neighbours are the two parties of a call.
    let far: Vec<_> = far.collect();
    let ways = sockets.iter().enumerate().map(|(flow, socket)| Way {
        from: socket.as_fd(),
        by: sockets[flow ^ 1].as_fd(),
        to: far[flow ^ 1],
    });
    let ways: Vec<_> = ways.collect();
    println!("ready");
    relay(&ways, |_| true)?;
    Ok(())
}

fn bind(options: &Options) -> Result<Vec<UdpSocket>> {
    let deadline = Instant::now() + BIND;
    (0..2 * options.calls)
        .map(|flow| {
            let address = (options.address, options.port + 2 * flow);
            loop {
                match UdpSocket::bind(address) {
                    Ok(socket) => return Ok(socket),
                    Err(error)
                        if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {}
                    Err(error) => return Err(error).with_context(|| format!("{address:?}")),
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        })
        .collect()
}
