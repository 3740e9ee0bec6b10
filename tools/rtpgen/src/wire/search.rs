//! The edge of loss: the highest rate at which a window loses less than a limit.

use std::io;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;

use super::{FlowsReport, Sender, Sink};
use crate::options::{SinkOptions, StreamOptions};

/// What one window showed.
#[derive(Debug, Clone, Serialize)]
pub struct Window {
    /// Packets a second that were asked for.
    pub rate: f64,
    /// Packets sent.
    pub sent: u64,
    /// Different packets that came back.
    pub delivered: u64,
    /// Part that did not.
    pub loss: f64,
    /// The generator could not keep this rate, or the sink not take it: the window shows nothing.
    pub limited: bool,
}

/// How to look for the edge.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// The first rate, packets a second.
    pub from: f64,
    /// No higher than this.
    pub to: f64,
    /// Part of packets whose loss is still none.
    pub loss_max: f64,
    /// Ends when the edge is known to this part of itself.
    pub precision: f64,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            from: 10_000.0,
            to: 4_000_000.0,
            loss_max: 0.001,
            precision: 0.05,
        }
    }
}

/// The edge.
#[derive(Debug, Clone, Serialize)]
pub struct Edge {
    /// The highest rate that lost nothing, packets a second; 0 = none did.
    pub rate: f64,
    /// The generator ended the search: the edge is at least `rate`.
    pub generator_limited: bool,
    /// Ended by Ctrl-C.
    pub interrupted: bool,
    /// All windows in order.
    pub windows: Vec<Window>,
}

impl Search {
    /// Rises by half until a window fails, then halves the distance. `None` from `measure` ends the
    /// search as interrupted.
    ///
    /// # Errors
    /// Those of `measure`.
    pub fn run<E>(
        self,
        mut measure: impl FnMut(f64) -> Result<Option<Window>, E>,
    ) -> Result<Edge, E> {
        let mut edge = Edge {
            rate: 0.0,
            generator_limited: false,
            interrupted: false,
            windows: Vec::new(),
        };
        let (mut rate, mut fails) = (self.from, None::<f64>);
        loop {
            let Some(window) = measure(rate)? else {
                edge.interrupted = true;
                return Ok(edge);
            };
            let (passed, limited) = (window.loss <= self.loss_max, window.limited);
            edge.windows.push(window);
            if passed && !limited {
                edge.rate = edge.rate.max(rate);
                // A lower bound that was only the generator's is no bound.
                edge.generator_limited &= fails.is_some();
            } else {
                edge.generator_limited = limited && passed;
                fails = Some(fails.map_or(rate, |fails| fails.min(rate)));
            }
            rate = match fails {
                None if edge.rate >= self.to => return Ok(edge),
                None => (rate * 1.5).min(self.to),
                Some(fails) if fails - edge.rate <= self.precision * fails => return Ok(edge),
                // Not even the first rate holds: say so after a few halvings.
                Some(fails) if edge.rate == 0.0 && fails < self.from / 16.0 => return Ok(edge),
                Some(fails) => f64::midpoint(edge.rate, fails),
            };
        }
    }
}

impl Edge {
    /// The search for a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{:>12} {:>12} {:>12} {:>10}\n",
            "packets/s", "sent", "delivered", "loss %"
        );
        for window in &self.windows {
            text += &format!(
                "{:>12.0} {:>12} {:>12} {:>10.3}{}\n",
                window.rate,
                window.sent,
                window.delivered,
                window.loss * 100.0,
                if window.limited {
                    "  the generator was the limit"
                } else {
                    ""
                }
            );
        }
        text += &match (self.rate > 0.0, self.interrupted, self.generator_limited) {
            (false, ..) => "no rate without loss was found".to_owned(),
            (_, true, _) => format!("interrupted: at least {:.0} packets/s", self.rate),
            (_, _, true) => format!(
                "at least {:.0} packets/s: the generator was the limit",
                self.rate
            ),
            _ => format!("edge of loss: {:.0} packets/s", self.rate),
        };
        text.push('\n');
        text
    }
}

/// Looks for the edge of whatever is between our sender and our sink, with windows of
/// `stream.duration`.
///
/// # Errors
/// As the sender's and the sink's.
pub fn between(
    stream: &StreamOptions,
    sink: &SinkOptions,
    search: Search,
    stop: &AtomicBool,
) -> io::Result<Edge> {
    search.run(|rate| {
        let options = StreamOptions {
            rate: Some(rate),
            ..stream.clone()
        };
        let (sent, heard) = window(&mut Sender::open(&options)?, sink, stream.duration, stop)?;
        if sent.interrupted {
            return Ok(None);
        }
        Ok(Some(judge(rate, &sent, &heard)))
    })
}

/// One window: what was sent and what came of it.
///
/// # Errors
/// The sink cannot be opened.
pub fn window(
    sender: &mut Sender,
    sink: &SinkOptions,
    duration: Duration,
    stop: &AtomicBool,
) -> io::Result<(FlowsReport, FlowsReport)> {
    let mut sink = Sink::open(sink)?;
    let sink_stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            sink.run(None, &sink_stop);
            sink.report()
        });
        sender.run(duration, stop);
        // What is under way still counts.
        std::thread::sleep(Duration::from_millis(300));
        sink_stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let heard = receiving
            .join()
            .map_err(|_| io::Error::other("the sink panicked"))?;
        Ok((sender.report(), heard))
    })
}

/// A window's result from both reports.
#[must_use]
pub fn judge(rate: f64, sent: &FlowsReport, heard: &FlowsReport) -> Window {
    let delivered: u64 = heard
        .flows
        .iter()
        .map(|flow| flow.expected - flow.lost)
        .sum();
    let loss = 1.0 - delivered as f64 / sent.sent.max(1) as f64;
    Window {
        rate,
        sent: sent.sent,
        delivered,
        loss: loss.max(0.0),
        limited: sent.generator.limited || heard.generator.limited,
    }
}
