//! The rtpgen command.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use trunkline_codec::g711::encode_mu_law;
use trunkline_rtpgen::tone::Tone;
use trunkline_rtpgen::wire::{interrupted, search};
use trunkline_rtpgen::{
    CallsOptions, Hangup, Io, Lengths, PayloadKind, SinkOptions, StreamOptions, run_calls,
    run_sink, run_stream,
};

/// Generates SIP calls and RTP, and reports what came through.
#[derive(Debug, Parser)]
#[command(
    name = "rtpgen",
    version,
    after_help = "Example:\n  \
    rtpgen calls --to sip:100@127.0.0.1:5060 --listen 127.0.0.1:5070 --calls 20 --rate 10 --duration 5"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Place calls with RTP through a SIP system, and answer them where --listen is given.
    Calls(CallsArgs),
    /// Send RTP flows without signalling.
    Stream(StreamArgs),
    /// Receive RTP flows and report loss, order and jitter.
    Sink(SinkArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Every call and direction has its own tone, and both ends check that they \
    hear the right one. Exit code 1 when a call failed. Ctrl-C ends the calls with BYE and \
    reports.\n\nExample (a route of the system under test leads to 127.0.0.1:5070):\n  \
    rtpgen calls --to sip:100@127.0.0.1:5060 --listen 127.0.0.1:5070 --calls 20 --rate 10 --duration 5"
)]
struct CallsArgs {
    /// Request-URI of the calls; {n} stands for the call's number; ;transport=tcp is understood
    #[arg(long, value_name = "URI")]
    to: String,
    /// Answer the calls too, listening for SIP (UDP and TCP) here; without it the far end is somebody else
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Send SIP from here [default: the address that reaches the target, any port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    local: Option<SocketAddr>,
    /// Address of the RTP of both ends [default: the one SIP is sent from]
    #[arg(long, value_name = "ADDRESS")]
    media: Option<IpAddr>,
    /// Number of calls
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,
    /// Calls begun a second
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    rate: f64,
    /// Rate at the last call: the rate goes there evenly from --rate
    #[arg(long, value_parser = positive)]
    rate_to: Option<f64>,
    /// Length of each call in seconds, or its mean
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = seconds)]
    duration: Duration,
    /// How the lengths are spread
    #[arg(long, value_enum, default_value_t = Lengths::Fixed)]
    lengths: Lengths,
    /// Say this instead of tones (WAV, mono, 8000 Hz, 16 bit); tones are then not checked
    #[arg(long, value_name = "FILE")]
    wav: Option<std::path::PathBuf>,
    /// How long the answering end rings, in seconds
    #[arg(long, default_value = "0", value_name = "SECONDS", value_parser = seconds)]
    ring: Duration,
    /// Cancel a call that is not answered for so long, in seconds
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    answer_timeout: Duration,
    /// User part of the caller; the call's number is appended
    #[arg(long, default_value = "caller", value_parser = user_part)]
    from_user: String,
    /// Who hangs up
    #[arg(long, value_enum, default_value_t = Hangup::Caller)]
    hangup: Hangup,
    /// Send RTCP sender reports
    #[arg(long)]
    rtcp: bool,
    /// Number of the first tone, so that runs side by side differ
    #[arg(long, default_value_t = 0)]
    first_tone: u32,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The report proves whether the schedule was kept. Exit code 1 when nothing was \
    sent. Ctrl-C ends the run with its report.\n\nExamples:\n  \
    rtpgen stream --to 127.0.0.1:40000 --flows 10 --duration 5\n  \
    rtpgen stream --to 10.0.0.1:20000 --flows 8000 --core 0 --payload opus\n  \
    rtpgen stream --to 10.0.0.1:20000 --flows 2000 --search --sink 10.0.0.2:30000 --duration 3"
)]
struct StreamArgs {
    /// Destination of the first flow; the next ones go to every second port above it
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// Local address [default: the one that reaches the destination]
    #[arg(long, value_name = "ADDRESS")]
    local: Option<IpAddr>,
    /// Number of flows
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    flows: u16,
    /// How long, in seconds; with --search, each window
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = seconds)]
    duration: Duration,
    /// Send RTCP sender reports too, to the port above
    #[arg(long)]
    rtcp: bool,
    /// Milliseconds between two packets of a flow
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    ptime: u16,
    /// Packets a second over all flows [default: as flows and ptime say]
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// What to send: g711, opus (its sizes), or a number of bytes
    #[arg(long, default_value = "g711", value_parser = payload)]
    payload: PayloadKind,
    /// How to send
    #[arg(long, value_enum, default_value_t = Io::Auto)]
    io: Io,
    /// Stay on this core
    #[arg(long)]
    core: Option<usize>,
    /// Source port of the first flow; the next ones come from every second port above it
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    source_port: Option<u16>,
    /// All flows from one source port
    #[arg(long)]
    one_source: bool,
    /// Look for the highest rate without loss; needs --sink
    #[arg(long, requires = "sink")]
    search: bool,
    /// Where the flows arrive, on this machine: the first port, the next ones every second above
    #[arg(long, value_name = "ADDRESS:PORT", requires = "search")]
    sink: Option<SocketAddr>,
    /// First rate of the search, packets a second
    #[arg(long, default_value_t = 10_000.0, value_parser = positive)]
    search_from: f64,
    /// Highest rate of the search
    #[arg(long, default_value_t = 4_000_000.0, value_parser = positive)]
    search_to: f64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1 when nothing came. Ctrl-C ends the run with its report.\n\n\
    Example:\n  rtpgen sink --listen 127.0.0.1:40000 --flows 10 --duration 6"
)]
struct SinkArgs {
    /// The first port; the next ones are every second port above it
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Number of ports
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    flows: u16,
    /// How long, in seconds [default: until Ctrl-C]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// RTP clock of what comes, for the jitter: 48000 for opus
    #[arg(long, default_value_t = 8000, value_parser = clap::value_parser!(u32).range(1000..=200_000))]
    clock: u32,
    /// How to receive
    #[arg(long, value_enum, default_value_t = Io::Auto)]
    io: Io,
    /// Stay on this core
    #[arg(long)]
    core: Option<usize>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

fn payload(text: &str) -> Result<PayloadKind, String> {
    match text {
        "g711" => Ok(PayloadKind::G711),
        "opus" => Ok(PayloadKind::Opus),
        bytes => match bytes.parse() {
            Ok(bytes) if bytes <= 1400 => Ok(PayloadKind::Bytes(bytes)),
            _ => Err("g711, opus or 0 to 1400 bytes".to_owned()),
        },
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("must be a number above 0".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1e6).contains(&value) => Ok(Duration::from_secs_f64(value)),
        _ => Err("must be a number of seconds, 0 to 1000000".to_owned()),
    }
}

fn user_part(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if !text.is_empty() && text.chars().all(allowed) {
        return Ok(text.to_owned());
    }
    Err("letters, digits and - _ . + only".to_owned())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Calls(arguments) => calls(arguments),
        Command::Stream(arguments) => stream(&arguments),
        Command::Sink(arguments) => sink(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rtpgen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn calls(arguments: CallsArgs) -> anyhow::Result<bool> {
    let local = match arguments.local {
        Some(local) => local,
        None => SocketAddr::new(local_address(target_of(&arguments.to)?)?, 0),
    };
    let report = run_calls(CallsOptions {
        to: arguments.to,
        listen: arguments.listen,
        local,
        media_address: arguments.media.unwrap_or(local.ip()),
        calls: arguments.calls,
        rate: arguments.rate,
        rate_to: arguments.rate_to,
        duration: arguments.duration,
        lengths: arguments.lengths,
        sound: arguments.wav.as_deref().map(sound).transpose()?,
        ring: arguments.ring,
        answer_timeout: arguments.answer_timeout,
        from_user: arguments.from_user,
        hangup: arguments.hangup,
        rtcp: arguments.rtcp,
        first_tone: arguments.first_tone,
        marked: false,
        watch_interrupt: true,
    })?;
    print(arguments.json, &report, || report.to_text())?;
    Ok(report.failed == 0 && (report.interrupted || report.is_ok()))
}

/// A WAV as what both ends say.
fn sound(path: &std::path::Path) -> anyhow::Result<std::sync::Arc<Tone>> {
    let name = path.display();
    let mut wav = hound::WavReader::open(path).with_context(|| format!("{name}"))?;
    let spec = wav.spec();
    if (spec.channels, spec.sample_rate, spec.bits_per_sample) != (1, 8000, 16) {
        anyhow::bail!("{name}: must be mono, 8000 Hz, 16 bit");
    }
    let samples = wav.samples::<i16>();
    let samples: Vec<i16> = samples
        .collect::<Result<_, _>>()
        .with_context(|| format!("{name}"))?;
    if samples.is_empty() {
        anyhow::bail!("{name}: holds no sound");
    }
    let encoded = samples.into_iter().map(encode_mu_law).collect();
    Ok(std::sync::Arc::new(Tone::of_recording(encoded)))
}

fn stream(arguments: &StreamArgs) -> anyhow::Result<bool> {
    let local = match arguments.local {
        Some(local) => local,
        None => local_address(arguments.to)?,
    };
    let options = StreamOptions {
        to: arguments.to,
        local,
        flows: arguments.flows,
        duration: arguments.duration,
        rtcp: arguments.rtcp,
        ptime_ms: arguments.ptime,
        rate: arguments.rate,
        payload: arguments.payload,
        io: arguments.io,
        core: arguments.core,
        source_port: arguments.source_port,
        one_source: arguments.one_source,
    };
    if let Some(listen) = arguments.sink {
        let sink = SinkOptions {
            listen,
            flows: arguments.flows,
            io: arguments.io,
            clock_hz: arguments.payload.clock_hz(),
            ..SinkOptions::default()
        };
        let wanted = search::Search {
            from: arguments.search_from,
            to: arguments.search_to.max(arguments.search_from),
            ..search::Search::default()
        };
        let edge = search::between(&options, &sink, wanted, &interrupted())?;
        print(arguments.json, &edge, || edge.to_text())?;
        return Ok(edge.rate > 0.0);
    }
    let report = run_stream(&options)
        .with_context(|| format!("cannot send from {local} to {}", arguments.to))?;
    print(arguments.json, &report, || report.to_text())?;
    Ok(report.sent > 0)
}

fn sink(arguments: &SinkArgs) -> anyhow::Result<bool> {
    let report = run_sink(&SinkOptions {
        listen: arguments.listen,
        flows: arguments.flows,
        duration: arguments.duration,
        io: arguments.io,
        interface: None,
        core: arguments.core,
        clock_hz: arguments.clock,
    })
    .with_context(|| format!("cannot receive from {} on", arguments.listen))?;
    print(arguments.json, &report, || report.to_text())?;
    Ok(report.received > 0)
}

fn print<T: serde::Serialize>(
    json: bool,
    report: &T,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        print!("{}", text());
    }
    Ok(())
}

/// The host and port of a SIP URI whose host is an address.
fn target_of(uri: &str) -> anyhow::Result<SocketAddr> {
    let parsed: trunkline_sip::message::Uri = uri
        .replace("{n}", "0")
        .parse()
        .with_context(|| format!("{uri} is no SIP URI"))?;
    let address = parsed
        .host_ip()
        .with_context(|| format!("{uri}: the host must be an address"))?;
    Ok(SocketAddr::new(address, parsed.port().unwrap_or(5060)))
}

/// Our address on the way to a target; nothing is sent.
fn local_address(target: SocketAddr) -> anyhow::Result<IpAddr> {
    let any: SocketAddr = if target.is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    }
    .parse()?;
    let socket = UdpSocket::bind(any)?;
    socket
        .connect(target)
        .with_context(|| format!("{target} cannot be reached"))?;
    Ok(socket.local_addr()?.ip())
}
