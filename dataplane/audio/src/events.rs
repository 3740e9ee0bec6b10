//! Telephone events (RFC 4733): several reports make one event.

use trunkline_codec::telephone_event::{EventReport, key};

/// Events remembered of one capture.
const EVENTS_MAX: usize = 100_000;

/// A telephone event heard in the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// 0 = caller, 1 = callee.
    pub side: u8,
    /// Channel of the output in which it is heard when tones are wanted.
    pub channel: usize,
    /// Event code (RFC 4733 section 3.2).
    pub event: u8,
    /// The key, for DTMF.
    pub key: Option<char>,
    /// Start, ms after the first sample of the output; negative when before it.
    pub start_ms: i64,
    /// Duration in ms.
    pub duration_ms: u32,
    /// Level in -dBm0.
    pub volume: u8,
    /// Reports received for it, repetitions included.
    pub reports: u32,
}

/// An event as its reports come in.
#[derive(Debug, Clone)]
pub(crate) struct RawEvent {
    pub(crate) run: usize,
    pub(crate) sequence: i64,
    pub(crate) ticks: i64,
    pub(crate) wall_ns: i64,
    event: u8,
    volume: u8,
    duration: u16,
    reports: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Collector {
    pub(crate) events: Vec<RawEvent>,
}

impl Collector {
    /// Takes a report that began at timestamp `ticks`.
    pub(crate) fn add(
        &mut self,
        run: usize,
        sequence: i64,
        ticks: i64,
        wall_ns: i64,
        payload: &[u8],
    ) {
        let Some(report) = EventReport::parse(payload) else {
            return;
        };
        let same = |known: &&mut RawEvent| {
            known.run == run && known.ticks == ticks && known.event == report.event
        };
        // Reports of both sides may interleave: the event is among the last few.
        if let Some(known) = self.events.iter_mut().rev().take(8).find(same) {
            known.duration = known.duration.max(report.duration);
            known.reports = known.reports.saturating_add(1);
        } else if self.events.len() < EVENTS_MAX {
            self.events.push(RawEvent {
                run,
                sequence,
                ticks,
                wall_ns,
                event: report.event,
                volume: report.volume,
                duration: report.duration,
                reports: 1,
            });
        }
    }
}

impl RawEvent {
    /// The event for the outside. No clock of telephone events is slower than 8000 Hz: with that
    /// none lasts longer than 8 s.
    pub(crate) fn describe(&self, side: u8, start_ms: i64, clock_hz: u32) -> TelephoneEvent {
        TelephoneEvent {
            side,
            channel: 0,
            event: self.event,
            key: key(self.event),
            start_ms,
            duration_ms: u32::from(self.duration) * 1_000 / clock_hz.max(8_000),
            volume: self.volume,
            reports: self.reports,
        }
    }
}
