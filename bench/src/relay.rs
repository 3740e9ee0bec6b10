//! Rounds of all contestants: edge of loss, overload, CPU a packet, latency, memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use trunkline_rtpgen::wire::search::{Search, Window as Searched};

use crate::contestant::{Contestant, Running, Stage};
use crate::load::{Window, window};
use crate::place::Rig;
use crate::results::{Results, quantity};

/// Part of packets whose loss is still none.
const LOSS_MAX: f64 = 0.001;
/// From one rate to the next beyond the edge, and how much more has to come through there for a
/// third.
const CLIMB: f64 = 1.25;
const CLIMBS: f64 = 1.02;

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Rounds of all contestants.
    pub rounds: usize,
    /// Length of a window.
    pub window: Duration,
    /// Rate at which CPU a packet is measured, packets/s.
    pub rate: f64,
    /// No edge is looked for beyond this, packets/s.
    pub search_to: f64,
    /// No rate of call set-ups beyond this, calls/s.
    pub calls_to: f64,
}

/// A run over contestants and rigs.
pub struct Bench<'a> {
    /// Where, and with how many calls.
    pub stage: Stage<'a>,
    /// How long and how often.
    pub effort: Effort,
    /// Set by Ctrl-C.
    pub stop: &'a AtomicBool,
    /// What is known so far.
    pub results: &'a mut Results,
}

/// What a search found.
#[derive(Debug, Clone, Copy)]
struct Found {
    edge: f64,
    best: f64,
    limited: bool,
}

impl Bench<'_> {
    /// Runs all rounds; what one contestant cannot do is noted, and the others go on.
    ///
    /// # Errors
    /// The rig cannot be set up.
    pub fn run(
        &mut self,
        rigs: &[Rig],
        contestants: &[Contestant],
        reference: Contestant,
    ) -> Result<()> {
        for round in 0..self.effort.rounds {
            for rig in rigs {
                self.stage.place.set_rig(*rig)?;
                // Another order each round, so that none always follows the same one.
                let mut order = contestants.to_vec();
                order.rotate_left(round % contestants.len());
                for who in &order {
                    self.capacity(round, *rig, *who)?;
                }
                let edge = self
                    .results
                    .spread((rig.name(), reference.name(), quantity::EDGE));
                if let Some(edge) = edge {
                    for who in &order {
                        self.latency(round, *rig, *who, edge.median / 2.0)?;
                    }
                }
                if self.stopped() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// CPU a packet of a relay started for this alone, under a name of its own.
    ///
    /// # Errors
    /// The load cannot be started.
    pub fn cpu_of(
        &mut self,
        round: usize,
        rig: Rig,
        stage: &Stage<'_>,
        who: Contestant,
        name: &str,
    ) -> Result<()> {
        if self.stopped() {
            return Ok(());
        }
        match self.started(stage, who) {
            Ok(mut running) => self.cpu(round, rig, name, &mut running),
            Err(error) => {
                self.results.note(format!("{name}: {error:#}"));
                Ok(())
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// CPU a packet, then the edge, then beyond it.
    fn capacity(&mut self, round: usize, rig: Rig, who: Contestant) -> Result<()> {
        if self.stopped() {
            return Ok(());
        }
        let Some(mut running) = self.start(round, rig, who, true) else {
            return Ok(());
        };
        self.cpu(round, rig, who.name(), &mut running)?;
        let from = self
            .results
            .spread((rig.name(), who.name(), quantity::EDGE))
            .map_or(self.effort.rate, |edge| (edge.median * 0.7).max(1_000.0))
            .min(self.effort.search_to);
        let Some(found) = self.search(rig, who, running, from)? else {
            return Ok(());
        };
        let at = |quantity| (rig.name(), who.name(), quantity);
        self.results.add(at(quantity::EDGE), round, found.edge);
        if found.limited {
            self.results.mark_at_least(at(quantity::EDGE));
        }
        let mut best = found.best;
        if found.edge > 0.0
            && let Some(mut running) = self.start(round, rig, who, false)
            && let Some(beyond) = self.measure(&mut running, found.edge * 1.5)?
        {
            eprintln!("  {}", describe("overload", &beyond));
            self.results
                .add(at(quantity::OVERLOAD), round, beyond.delivered_per_second);
            if beyond.limited {
                self.results.mark_at_least(at(quantity::OVERLOAD));
                self.results.mark_at_least(at(quantity::BEST));
            }
            best = best.max(beyond.delivered_per_second);
            best = self.climb(&mut running, beyond, best)?;
        }
        self.results.add(at(quantity::BEST), round, best);
        Ok(())
    }

    /// Goes on from an overload to higher rates as long as that brings more; the most packets
    /// delivered a second. A contestant that loses a little long before it is at its end is judged by
    /// this.
    fn climb(&mut self, running: &mut Running, from: Window, best: f64) -> Result<f64> {
        let (mut best, mut last) = (best, from);
        while !last.limited && last.rate * CLIMB <= self.effort.search_to {
            let Some(next) = self.measure(running, last.rate * CLIMB)? else {
                break;
            };
            eprintln!("  {}", describe("climb", &next));
            best = best.max(next.delivered_per_second);
            if next.delivered_per_second < last.delivered_per_second * CLIMBS {
                break;
            }
            last = next;
        }
        Ok(best)
    }

    fn cpu(&mut self, round: usize, rig: Rig, name: &str, running: &mut Running) -> Result<()> {
        let place = self.stage.place;
        let before = (running.process.cpu_ns(), place.kernel_cpu_ns());
        let Some(window) = self.measure(running, self.effort.rate)? else {
            return Ok(());
        };
        running.check_recordings()?;
        let each = |ns: u64| ns as f64 / 1000.0 / window.delivered.max(1) as f64;
        let own = each(running.process.cpu_ns().saturating_sub(before.0));
        let kernel = each(place.kernel_cpu_ns().saturating_sub(before.1));
        let us = own + kernel;
        eprintln!(
            "  {} {us:.2} us a packet, {kernel:.2} of it in kernel threads",
            describe("steady", &window)
        );
        if window.loss > LOSS_MAX {
            self.results.note(format!(
                "{name} lost {:.2} % at {:.0} packets/s in the {} rig: its CPU a packet there is of what came through",
                window.loss * 100.0,
                window.rate,
                rig.name()
            ));
        }
        self.results
            .add((rig.name(), name, quantity::CPU), round, us);
        Ok(())
    }

    /// An overloaded relay may not come back, so each window that lost is followed by a fresh start.
    fn search(
        &mut self,
        rig: Rig,
        who: Contestant,
        running: Running,
        from: f64,
    ) -> Result<Option<Found>> {
        let search = Search {
            from,
            to: self.effort.search_to,
            loss_max: LOSS_MAX,
            precision: 0.05,
        };
        let mut best = 0.0_f64;
        let mut running = Some(running);
        let edge = search.run(|rate| {
            // Something else on the machine may spoil one window, hardly two.
            let mut last = None;
            for _ in 0..2 {
                let mut current = match running.take() {
                    Some(current) => current,
                    None => self.started(&self.stage, who)?,
                };
                let Some(window) = self.measure(&mut current, rate)? else {
                    return Ok(None);
                };
                eprintln!("  {}", describe("search", &window));
                best = best.max(window.delivered_per_second);
                let passed = window.loss <= LOSS_MAX && !window.limited;
                last = Some(Searched {
                    rate,
                    sent: window.sent,
                    delivered: window.delivered,
                    loss: window.loss,
                    limited: window.limited,
                });
                if passed {
                    running = Some(current);
                    break;
                }
            }
            Ok::<_, anyhow::Error>(last)
        })?;
        if edge.interrupted {
            return Ok(None);
        }
        eprintln!("{:<8} {:<17} edge {:.0}", rig.name(), who.name(), edge.rate);
        Ok(Some(Found {
            edge: edge.rate,
            best,
            limited: edge.generator_limited,
        }))
    }

    fn latency(&mut self, round: usize, rig: Rig, who: Contestant, rate: f64) -> Result<()> {
        if self.stopped() {
            return Ok(());
        }
        let Some(mut running) = self.start(round, rig, who, false) else {
            return Ok(());
        };
        let Some(window) = self.measure(&mut running, rate)? else {
            return Ok(());
        };
        eprintln!(
            "{:<8} {:<17} {} p50 {:.3} p99 {:.3} p99.9 {:.3} ms",
            rig.name(),
            who.name(),
            describe("latency", &window),
            window.latency_p50_ms,
            window.latency_p99_ms,
            window.latency_p999_ms
        );
        for (quantity, value) in [
            (quantity::P50, window.latency_p50_ms),
            (quantity::P99, window.latency_p99_ms),
            (quantity::P999, window.latency_p999_ms),
        ] {
            self.results
                .add((rig.name(), who.name(), quantity), round, value);
        }
        Ok(())
    }

    /// Starts a relay and lets packets flow for a moment: sources are learnt, caches warm.
    fn started(&self, stage: &Stage<'_>, who: Contestant) -> Result<Running> {
        let mut running = stage.start(who)?;
        let warm = Duration::from_millis(500);
        window(stage.place, &running.flows, 20_000.0, warm, self.stop)?;
        running.tend()?;
        Ok(running)
    }

    /// Starts a contestant; what keeps it from that is noted.
    fn start(&mut self, round: usize, rig: Rig, who: Contestant, weigh: bool) -> Option<Running> {
        match self.started(&self.stage, who) {
            Ok(running) => {
                if weigh && running.call_bytes > 0 {
                    let kib = running.call_bytes as f64 / 1024.0 / f64::from(self.stage.calls);
                    self.results
                        .add((rig.name(), who.name(), quantity::MEMORY), round, kib);
                }
                eprintln!("round {round} {:<8} {}", rig.name(), who.name());
                Some(running)
            }
            Err(error) => {
                eprintln!("{}: {error:#}", who.name());
                self.results.note(format!("{}: {error:#}", who.name()));
                None
            }
        }
    }

    fn measure(&self, running: &mut Running, rate: f64) -> Result<Option<Window>> {
        let measured = window(
            self.stage.place,
            &running.flows,
            rate,
            self.effort.window,
            self.stop,
        )?;
        running.tend()?;
        if let Some(window) = &measured
            && window.sent == 0
        {
            bail!("the generator sent nothing at {rate} packets/s");
        }
        Ok(measured)
    }
}

fn describe(what: &str, window: &Window) -> String {
    format!(
        "{what:<8} {:>9.0}/s offered {:>9.0}/s delivered, loss {:.3} %{}",
        window.rate,
        window.delivered_per_second,
        window.loss * 100.0,
        if window.limited {
            " (the generator was the limit)"
        } else {
            ""
        }
    )
}
