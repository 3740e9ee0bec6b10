//! Digits that we dial towards a side (RFC 4733): telephone-event packets put into the stream that it
//! hears of the other, and counted on in that stream's numbering.

use std::collections::VecDeque;

use trunkline_rtp::{Clock, TelephoneEvent};

use crate::actions::{Actions, FrameKind, FrameMeta};
use crate::counters::Counters;
use crate::engine::{Engine, NEVER};
use crate::flow::{Flow, NO_TAP};
use crate::fork;
use crate::spec::{DigitSpec, EngineError, Side, TAIL_ROOM_BYTES};

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
/// Bytes of a fixed RTP header.
const HEADER_BYTES: usize = 12;
const PACKET_BYTES: usize = HEADER_BYTES + TelephoneEvent::BYTES;

/// What is being dialled towards one side.
#[derive(Debug, Default)]
pub(crate) struct Dialler {
    waiting: VecDeque<DigitSpec>,
    active: Option<Active>,
    due_ns: u64,
    /// SSRC and last sequence number of a stream of our own, where the other side sends none.
    own: Option<(u32, u16)>,
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

/// Where in a stream the next packet stands.
struct Position {
    ssrc: u32,
    sequence: u16,
}

impl Dialler {
    fn is_idle(&self) -> bool {
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
        let session = self.session(digit.session)?;
        let index = *session
            .flows
            .get(usize::from(digit.media))
            .ok_or(EngineError::NotFound)?;
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
        dialler.active = send(
            flow,
            to,
            &mut dialler.own,
            active,
            now_ns,
            counters,
            actions,
        );
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
    let heard = flow.legs[to.other() as usize].streams.current();
    let timestamp = heard.map_or_else(
        || Clock::new(digit.clock_hz).ticks(now_ns) as u32,
        |stream| stream.shown_timestamp(now_ns),
    );
    Active {
        digit,
        started_ns: now_ns,
        timestamp,
        earlier_ticks: 0,
        ends: 0,
        begun: false,
    }
}

/// Sends one packet of an event; gives what is left of it.
fn send(
    flow: &mut Flow,
    to: Side,
    own: &mut Option<(u32, u16)>,
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
    let position = next_position(flow, to, own, digit.ssrc);
    let mut packet = [0; PACKET_BYTES + TAIL_ROOM_BYTES];
    packet[0] = 0x80;
    packet[1] = digit.payload_type | u8::from(!active.begun) << 7;
    packet[2..4].copy_from_slice(&position.sequence.to_be_bytes());
    packet[4..8].copy_from_slice(&active.timestamp.to_be_bytes());
    packet[8..12].copy_from_slice(&position.ssrc.to_be_bytes());
    packet[HEADER_BYTES..PACKET_BYTES].copy_from_slice(&block.encode());
    if flow.tap != NO_TAP {
        capture(
            flow,
            to,
            &position,
            &active,
            &packet[..PACKET_BYTES],
            now_ns,
            actions,
        );
    }
    fork::inject(
        &mut flow.forks,
        to.other(),
        &mut packet[..PACKET_BYTES],
        counters,
        actions,
    );
    let far = flow.leg(to);
    match far.latch.destination().filter(|_| far.may_send) {
        None => counters.not_sent += 1,
        Some(destination) => match far.transform.seal(&mut packet, PACKET_BYTES) {
            None => counters.transform_failed += 1,
            Some(length) => {
                counters.rtp_out += 1;
                counters.rtp_bytes_out += length as u64;
                actions.forward_copy(far.slots.rtp, destination, &packet[..length]);
            }
        },
    }
    active.begun = true;
    if segment_full {
        active.timestamp = active.timestamp.wrapping_add(u32::from(u16::MAX));
        active.earlier_ticks += u64::from(u16::MAX);
    }
    active.ends += u8::from(ended);
    (active.ends < ENDS).then_some(active)
}

/// The number of the next packet of what `to` hears, taken.
fn next_position(
    flow: &mut Flow,
    to: Side,
    own: &mut Option<(u32, u16)>,
    fresh_ssrc: u32,
) -> Position {
    if own.is_none()
        && let Some((ssrc, sequence)) = flow.leg(to.other()).streams.put_in()
    {
        return Position { ssrc, sequence };
    }
    let (ssrc, sequence) = own.get_or_insert((fresh_ssrc, 0));
    *sequence = sequence.wrapping_add(1);
    Position {
        ssrc: *ssrc,
        sequence: *sequence,
    }
}

/// The recording shows it beside what was received, as played by us.
fn capture(
    flow: &Flow,
    to: Side,
    position: &Position,
    active: &Active,
    packet: &[u8],
    now_ns: u64,
    actions: &mut impl Actions,
) {
    let frame = FrameMeta {
        kind: FrameKind::Injected,
        side: to.other(),
        media: flow.media,
        ssrc: position.ssrc,
        sequence: position.sequence,
        sequence_cycles: 0,
        timestamp: active.timestamp,
        payload_type: active.digit.payload_type,
        marker: !active.begun,
        duplicate: false,
        late: false,
        telephone_event: true,
        at_ns: now_ns,
    };
    let _ = actions.capture(flow.tap, &frame, packet);
}
