//! Digits that we dial towards a side (RFC 4733): telephone-event packets put into the stream that it
//! hears of the other, and counted on in that stream's numbering.

use std::collections::VecDeque;

use trunkline_rtp::{Clock, TelephoneEvent};

use crate::actions::Actions;
use crate::counters::Counters;
use crate::engine::{Engine, NEVER};
use crate::flow::Flow;
use crate::ours::{self, HEADER_BYTES, Header};
use crate::spec::{Codec, DigitSpec, EngineError, Side, TAIL_ROOM_BYTES};

/// Time between two packets of an event.
const STEP_NS: u64 = 20_000_000;
/// How often the end is said (RFC 4733 section 2.5.1.4).
const ENDS: u8 = 3;
/// Silence between two digits, beside a step.
const PAUSE_NS: u64 = 40_000_000;
/// Digits that wait for one direction.
const QUEUE_MAX: usize = 32;
/// Power of an event, -dBm0.
const VOLUME: u8 = 10;
const PACKET_BYTES: usize = HEADER_BYTES + TelephoneEvent::BYTES;

/// What is being dialled towards one side.
#[derive(Debug, Default)]
pub(crate) struct Dialler {
    waiting: VecDeque<DigitSpec>,
    active: Option<Active>,
    due_ns: u64,
}

#[derive(Debug, Clone, Copy)]
struct Active {
    digit: DigitSpec,
    started_ns: u64,
    /// Start of the segment (RFC 4733 section 2.5.1.3), and what earlier segments lasted.
    timestamp: u32,
    earlier_ticks: u64,
    /// Packets that said the end.
    ends: u8,
    begun: bool,
}

impl Dialler {
    pub(crate) fn is_idle(&self) -> bool {
        self.active.is_none() && self.waiting.is_empty()
    }
}

impl Engine {
    /// Dials a digit towards a side, after those that it was given before.
    ///
    /// # Errors
    /// No such session or m-line, a field out of range, or too many digits that wait.
    pub fn dial(&mut self, now_ns: u64, digit: &DigitSpec) -> Result<(), EngineError> {
        if digit.payload_type > 127 || digit.clock_hz == 0 || digit.event > 15 {
            return Err(EngineError::Invalid);
        }
        let index = self.flow_index(digit.session, digit.media)?;
        let leg = self.flows[index as usize].leg(digit.to);
        let dialler = leg.dialler.get_or_insert_default();
        if dialler.waiting.len() >= QUEUE_MAX {
            return Err(EngineError::NoCapacity);
        }
        if dialler.is_idle() {
            dialler.due_ns = dialler.due_ns.max(now_ns);
        }
        dialler.waiting.push_back(*digit);
        self.dialling.insert(index);
        self.dial_ns = self.dial_ns.min(now_ns);
        Ok(())
    }

    /// Sends what is due of all digits.
    pub(crate) fn dial_due(&mut self, now_ns: u64, actions: &mut impl Actions) {
        let mut next_ns = NEVER;
        let (flows, counters) = (&mut self.flows, &mut self.counters);
        self.dialling.retain(|&index| {
            let flow = &mut flows[index as usize];
            let mut busy = false;
            for to in Side::BOTH {
                if let Some(due_ns) = step(flow, to, now_ns, counters, actions) {
                    next_ns = next_ns.min(due_ns);
                    busy = true;
                }
            }
            busy
        });
        self.dial_ns = next_ns;
    }
}

/// Sends the next packet towards a side, if it is due; gives when to look again.
fn step(
    flow: &mut Flow,
    to: Side,
    now_ns: u64,
    counters: &mut Counters,
    actions: &mut impl Actions,
) -> Option<u64> {
    let mut dialler = flow.leg(to).dialler.take()?;
    while !dialler.is_idle() && dialler.due_ns <= now_ns {
        let active = match dialler.active.take() {
            Some(active) => active,
            None => {
                let digit = dialler.waiting.pop_front()?;
                begin(flow, to, digit, now_ns)
            }
        };
        dialler.active = send(flow, to, active, now_ns, counters, actions);
        // A clock that stood still is not made up for.
        let wait_ns = STEP_NS
            + if dialler.active.is_none() {
                PAUSE_NS
            } else {
                0
            };
        dialler.due_ns = now_ns + wait_ns;
    }
    let due_ns = (!dialler.is_idle()).then_some(dialler.due_ns);
    flow.leg(to).dialler = Some(dialler);
    due_ns
}

/// The event begins now, in the time of the stream that it goes into.
fn begin(flow: &Flow, to: Side, digit: DigitSpec, now_ns: u64) -> Active {
    let heard = &flow.legs[to.other() as usize].streams;
    Active {
        digit,
        started_ns: now_ns,
        timestamp: heard.timestamp_now(now_ns, Clock::new(digit.clock_hz)),
        earlier_ticks: 0,
        ends: 0,
        begun: false,
    }
}

/// Sends one packet of an event; gives what is left of it.
fn send(
    flow: &mut Flow,
    to: Side,
    mut active: Active,
    now_ns: u64,
    counters: &mut Counters,
    actions: &mut impl Actions,
) -> Option<Active> {
    let digit = active.digit;
    let elapsed_ns = now_ns - active.started_ns + STEP_NS;
    let total_ns = u64::from(digit.duration_ms) * 1_000_000;
    let ticks = Clock::new(digit.clock_hz).ticks(elapsed_ns.min(total_ns.max(STEP_NS)));
    let ticks = ticks.saturating_sub(active.earlier_ticks);
    // What the field cannot say is said of a segment that begins where this one ends.
    let segment_full = ticks > u64::from(u16::MAX);
    let ended = elapsed_ns >= total_ns && !segment_full;
    let block = TelephoneEvent {
        event: digit.event,
        end: ended,
        volume: VOLUME,
        duration: u16::try_from(ticks).unwrap_or(u16::MAX),
    };
    let header = Header {
        position: flow.leg(to.other()).streams.put_in(digit.ssrc),
        timestamp: active.timestamp,
        payload_type: digit.payload_type,
        marker: !active.begun,
        codec: Codec::TelephoneEvent,
    };
    let mut packet = [0; PACKET_BYTES + TAIL_ROOM_BYTES];
    packet[HEADER_BYTES..PACKET_BYTES].copy_from_slice(&block.encode());
    ours::send(
        flow,
        to,
        &header,
        &mut packet,
        PACKET_BYTES,
        now_ns,
        counters,
        actions,
    );
    let until = active.timestamp.wrapping_add(ticks as u32);
    let heard = &mut flow.leg(to.other()).streams;
    heard.put_in_until(until, now_ns + STEP_NS);
    active.begun = true;
    if segment_full {
        active.timestamp = active.timestamp.wrapping_add(u32::from(u16::MAX));
        active.earlier_ticks += u64::from(u16::MAX);
    }
    active.ends += u8::from(ended);
    (active.ends < ENDS).then_some(active)
}
