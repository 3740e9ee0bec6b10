//! `rtpgen stream` and `rtpgen sink`: RTP without signalling.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::media::{Media, StreamId, StreamReport, StreamSpec};
use crate::options::{SinkOptions, StreamOptions};
use crate::report::Percentiles;
use crate::tone;

/// One flow.
#[derive(Debug, Clone, Serialize)]
pub struct FlowResult {
    /// The far port (stream) or our own (sink).
    pub port: u16,
    /// RTP packets sent, and refused by the kernel.
    pub sent: u64,
    /// See `sent`.
    pub send_errors: u64,
    /// RTP packets received.
    pub received: u64,
    /// Sequence numbers between the first and the last received.
    pub expected: u64,
    /// Of these, those that never came.
    pub lost: u64,
    /// Received again.
    pub duplicates: u64,
    /// Received after a later one.
    pub reordered: u64,
    /// Datagrams that were neither RTP nor RTCP.
    pub malformed: u64,
    /// RTCP datagrams received.
    pub rtcp: u64,
    /// RFC 3550 jitter, ms.
    pub jitter_ms: f64,
}

/// A run of flows.
#[derive(Debug, Clone, Serialize)]
pub struct FlowsReport {
    /// Length of the run, s.
    pub elapsed_s: f64,
    /// Flows on which anything was sent or received.
    pub active: usize,
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets received.
    pub received: u64,
    /// Lost.
    pub lost: u64,
    /// Duplicates.
    pub duplicates: u64,
    /// Reordered.
    pub reordered: u64,
    /// Jitter of each flow at its end.
    pub jitter_ms: Percentiles,
    /// How late packets left against their schedule.
    pub send_lateness_ms: Percentiles,
    /// Each flow.
    pub flows: Vec<FlowResult>,
}

impl FlowsReport {
    /// The report for a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "flows   {} of {} active in {:.1} s",
            self.active,
            self.flows.len(),
            self.elapsed_s
        );
        let _ = writeln!(
            text,
            "rtp     {} sent, {} received, {} lost, {} duplicates, {} reordered",
            self.sent, self.received, self.lost, self.duplicates, self.reordered
        );
        for (name, values) in [
            ("jitter", &self.jitter_ms),
            ("send lateness", &self.send_lateness_ms),
        ] {
            let _ = writeln!(
                text,
                "{name:<14} p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
                values.p50, values.p99, values.max
            );
        }
        text
    }
}

/// Sends flows of tones.
///
/// # Errors
/// No sockets, or the destination ports do not exist (65,535 is the last).
pub fn run_stream(options: &StreamOptions) -> io::Result<FlowsReport> {
    let ports = ports(options.to, options.flows)?;
    run(&ports, Some(options.duration), |number, port| Flow {
        spec: StreamSpec {
            rtcp: options.rtcp,
            ..spec(options.local, None, number)
        },
        port,
        destination: Some(SocketAddr::new(options.to.ip(), port)),
    })
}

/// Receives flows.
///
/// # Errors
/// A port cannot be bound.
pub fn run_sink(options: &SinkOptions) -> io::Result<FlowsReport> {
    let ports = ports(options.listen, options.flows)?;
    run(&ports, options.duration, |number, port| Flow {
        spec: spec(options.listen.ip(), Some(port), number),
        port,
        destination: None,
    })
}

struct Flow {
    spec: StreamSpec,
    port: u16,
    destination: Option<SocketAddr>,
}

fn spec(address: IpAddr, port: Option<u16>, number: u32) -> StreamSpec {
    StreamSpec {
        address,
        port,
        send_hz: tone::frequency_hz(number),
        expect_hz: None,
        hears: None,
        payload_type: 0,
        expect_payload_type: None,
        rtcp: false,
    }
}

fn ports(first: SocketAddr, flows: u16) -> io::Result<Vec<u16>> {
    (0..u32::from(flows))
        .map(|number| u16::try_from(u32::from(first.port()) + 2 * number).ok())
        .collect::<Option<Vec<u16>>>()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "ports beyond 65535"))
}

fn run(
    ports: &[u16],
    duration: Option<Duration>,
    flow: impl Fn(u32, u16) -> Flow,
) -> io::Result<FlowsReport> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let media = Media::start()?;
    let begin = Instant::now();
    let results = runtime.block_on(async {
        let mut open: Vec<(StreamId, u16)> = Vec::new();
        for (number, port) in ports.iter().enumerate() {
            let flow = flow(number as u32, *port);
            let id = media.new_id();
            media.open(id, flow.spec).await?;
            if let Some(destination) = flow.destination {
                media.send_to(id, destination);
            }
            open.push((id, flow.port));
        }
        tokio::select! {
            () = wait(duration) => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        let mut results = Vec::new();
        for (id, port) in open {
            results.push(result(port, &media.close(id).await));
        }
        Ok::<_, io::Error>(results)
    })?;
    let times = media.finish().unwrap_or_default();
    let sum = |value: fn(&FlowResult) -> u64| results.iter().map(value).sum();
    Ok(FlowsReport {
        elapsed_s: begin.elapsed().as_secs_f64(),
        active: results
            .iter()
            .filter(|flow| flow.sent + flow.received > 0)
            .count(),
        sent: sum(|flow| flow.sent),
        received: sum(|flow| flow.received),
        lost: sum(|flow| flow.lost),
        duplicates: sum(|flow| flow.duplicates),
        reordered: sum(|flow| flow.reordered),
        jitter_ms: Percentiles::milliseconds(&times.jitter_us),
        send_lateness_ms: Percentiles::milliseconds(&times.lateness_us),
        flows: results,
    })
}

async fn wait(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

fn result(port: u16, report: &StreamReport) -> FlowResult {
    let heard = &report.received;
    FlowResult {
        port,
        sent: report.sent,
        send_errors: report.send_errors,
        received: heard.packets,
        expected: heard.expected,
        lost: heard.expected - heard.distinct.min(heard.expected),
        duplicates: heard.duplicates,
        reordered: heard.reordered,
        malformed: heard.malformed,
        rtcp: heard.rtcp,
        jitter_ms: heard.jitter_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_streamed_arrives_at_the_sink() {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let port = (free.local_addr().expect("an address").port() & !1).min(65_000);
        drop(free);
        let first = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port);
        let sink = SinkOptions {
            listen: first,
            flows: 3,
            duration: Some(Duration::from_secs(3)),
        };
        let sink = std::thread::spawn(move || run_sink(&sink));
        std::thread::sleep(Duration::from_millis(500));
        let sent = run_stream(&StreamOptions {
            to: first,
            local: first.ip(),
            flows: 3,
            duration: Duration::from_secs(1),
            rtcp: true,
        })
        .expect("a stream");
        let heard = sink.join().expect("a sink").expect("free ports");
        assert_eq!((sent.active, heard.active), (3, 3));
        assert_eq!((heard.received, heard.lost), (sent.sent, 0));
        assert!(sent.sent > 100, "{}", sent.sent);
        assert!(
            heard
                .flows
                .iter()
                .all(|flow| flow.rtcp == 1 && flow.malformed == 0)
        );
    }

    #[test]
    fn ports_beyond_the_last_are_an_error() {
        let first: SocketAddr = "127.0.0.1:65534".parse().expect("an address");
        assert_eq!(ports(first, 1).expect("one port"), [65534]);
        assert!(ports(first, 2).is_err());
    }
}
