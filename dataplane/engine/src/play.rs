//! What we play to a side, an announcement or a tone, so that it knows of the recording: prepared sound
//! ([`crate::Source`]) in place of what the other side sends, or mixed into it, and by our own clock
//! where the other side sends nothing.
//!
//! ```text
//!   play ──► waits ──(its time)──► a pass ── packets of the other side pass: each gets its part of the
//!              ▲                     │       sound, found by its timestamp
//!              │                     └────── none pass: packets of ours, counted on in the numbering
//!              └──(every_ns later)── end     that the side sees
//! ```
//! A pass that cannot be heard (the side receives nothing, the other sends what we have no sound for,
//! digits) stands still meanwhile.

use std::cmp::Reverse;

use trunkline_rtp::{Clock, RtpHeader};

use crate::actions::{Actions, Event};
use crate::counters::Counters;
use crate::engine::{Engine, NEVER};
use crate::flow::{Flow, Leg};
use crate::ours::{self, HEADER_BYTES, Header};
use crate::silence::silence;
use crate::spec::{
    Codec, EngineError, MediaKind, PlayMode, PlaySpec, Side, TAIL_ROOM_BYTES, Voice,
};
use crate::stream::{Position, Stream, later};

/// Silence of the other side from which on we send by our own clock, while its stream is known.
const GAP_NS: u64 = 60_000_000;
/// The same before it has sent anything.
const FIRST_GAP_NS: u64 = 200_000_000;
/// How often a pass that stands still is looked at.
const STALLED_NS: u64 = 100_000_000;
/// A timestamp that is so far from where the pass is begins a new count.
const JUMP_US: i64 = 500_000;
/// Packets of ours that leave at once after a clock that stood still.
const CATCH_UP: usize = 4;
/// Passes looked at in one call.
const LOOKS_A_CALL: usize = 64;
/// Room for a packet of ours.
const PACKET_BYTES_MAX: usize = 1_400;
/// Sounds of one play, each in another codec.
const VOICES_MAX: usize = 4;
/// Durations that a packet of ours may have, µs.
const PACKET_US: std::ops::RangeInclusive<u32> = 5_000..=120_000;

/// What is played to one side.
#[derive(Debug)]
pub(crate) struct Player {
    play: u64,
    mode: PlayMode,
    every_ns: u64,
    packet_us: u64,
    ssrc: u32,
    voices: Vec<Voice>,
    /// When the next pass begins.
    starts_ns: u64,
    pass: Option<Pass>,
    /// When it is looked at next.
    due_ns: u64,
}

/// Once through the sound.
#[derive(Debug)]
struct Pass {
    /// When it was due.
    began_ns: u64,
    /// First and last packet that carried it.
    heard_ns: Option<(u64, u64)>,
    /// How far it is, µs.
    position_us: u64,
    packets: u32,
    anchor: Option<Anchor>,
    /// When we last saw that we are not to send by our own clock.
    waited_ns: u64,
    /// When our next packet is due; `None` = the other side's carry it.
    next_ns: Option<u64>,
    /// Packets of ours were put in.
    put_in: bool,
}

/// A timestamp, as the side sees it, and the part of the sound that belongs to it.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    ssrc: u32,
    clock_hz: u32,
    timestamp: u32,
    at_us: u64,
}

impl Pass {
    fn new(now_ns: u64) -> Self {
        Self {
            began_ns: now_ns,
            heard_ns: None,
            position_us: 0,
            packets: 0,
            anchor: None,
            waited_ns: now_ns,
            next_ns: None,
            put_in: false,
        }
    }

    /// Not by our own clock before this moment and a gap.
    fn wait(&mut self, since_ns: u64) {
        self.waited_ns = self.waited_ns.max(since_ns);
        self.next_ns = None;
    }

    /// Which part of the sound belongs to a packet with this timestamp, as the side sees it. `None`: it
    /// is from before the pass.
    fn locate(&mut self, at: Anchor, duration_us: u64) -> Option<u64> {
        let same = |anchor: &Anchor| (anchor.ssrc, anchor.clock_hz) == (at.ssrc, at.clock_hz);
        let found = self.anchor.filter(same).map(|anchor| {
            let ticks = i64::from(at.timestamp.wrapping_sub(anchor.timestamp) as i32);
            anchor.at_us as i64 + ticks * 1_000_000 / i64::from(anchor.clock_hz.max(1))
        });
        let near = |at_us: &i64| (at_us - self.position_us as i64).abs() <= JUMP_US;
        let at_us = match found.filter(near) {
            Some(at_us) => u64::try_from(at_us).ok()?,
            None => {
                let at_us = self.position_us;
                self.anchor = Some(Anchor { at_us, ..at });
                at_us
            }
        };
        self.position_us = self.position_us.max(at_us + duration_us);
        Some(at_us)
    }

    fn count(&mut self, now_ns: u64) {
        let (first_ns, _) = self.heard_ns.unwrap_or((now_ns, now_ns));
        self.heard_ns = Some((first_ns, now_ns));
        self.packets = self.packets.saturating_add(1);
    }
}

impl Player {
    fn new(spec: &PlaySpec, now_ns: u64) -> Self {
        Self {
            play: spec.play,
            mode: spec.mode,
            every_ns: spec.every_ns,
            packet_us: u64::from(spec.packet_us),
            ssrc: spec.ssrc,
            voices: Vec::new(),
            starts_ns: now_ns,
            pass: None,
            due_ns: NEVER,
        }
    }

    fn voice(&self, codec: Codec) -> Option<&Voice> {
        let speaks = |voice: &&Voice| voice.source.codec() == codec;
        self.voices.iter().find(speaks)
    }

    fn duration_us(&self) -> u64 {
        let durations = self.voices.iter().map(|voice| voice.source.duration_us());
        durations.max().unwrap_or(0)
    }

    /// Whether packets that pass are to be looked at.
    pub(crate) fn is_heard(&self) -> bool {
        self.pass.is_some()
    }

    /// The pass is over, or broken off; another one may follow. Gives what is to be told of it, if
    /// anything was heard.
    fn end_pass(&mut self, flow: (u64, u8), to: Side) -> Option<Event> {
        let pass = self.pass.take()?;
        let duration_us = self.duration_us();
        self.starts_ns = match self.every_ns {
            0 => NEVER,
            every_ns => pass.began_ns + every_ns,
        };
        let (from_ns, to_ns) = pass.heard_ns?;
        Some(Event::Played {
            session: flow.0,
            media: flow.1,
            to,
            play: self.play,
            from_ns,
            to_ns,
            packets: pass.packets,
            played_us: pass.position_us.min(duration_us),
            whole: pass.position_us >= duration_us,
        })
    }

    /// Begins, goes on with or ends a pass; gives when to look again.
    fn look(
        &mut self,
        flow: &mut Flow,
        to: Side,
        now_ns: u64,
        counters: &mut Counters,
        actions: &mut impl Actions,
    ) -> u64 {
        if self.pass.is_none() && now_ns < self.starts_ns {
            return self.starts_ns;
        }
        let duration_us = self.duration_us();
        let pass = self.pass.get_or_insert_with(|| Pass::new(now_ns));
        if pass.position_us < duration_us {
            let due_ns = self.send_due(flow, to, now_ns, counters, actions);
            let over = |pass: &Pass| pass.position_us >= duration_us;
            if !self.pass.as_ref().is_some_and(over) {
                return due_ns;
            }
        }
        let put_in = self.pass.as_ref().is_some_and(|pass| pass.put_in);
        if put_in && let Some(event) = renumbered(flow, to) {
            actions.event(event);
        }
        if let Some(event) = self.end_pass((flow.session, flow.media), to) {
            actions.event(event);
        }
        self.starts_ns = self.starts_ns.max(now_ns);
        self.starts_ns
    }

    /// Sends what is due by our own clock; gives when to look again.
    fn send_due(
        &mut self,
        flow: &mut Flow,
        to: Side,
        now_ns: u64,
        counters: &mut Counters,
        actions: &mut impl Actions,
    ) -> u64 {
        let duration_us = self.duration_us();
        let Some(pass) = &mut self.pass else {
            return self.starts_ns;
        };
        let far = flow.leg(to);
        let hears = far.may_send && far.latch.destination().is_some();
        let dials = far.dialler.as_ref().is_some_and(|one| !one.is_idle());
        if !hears || dials {
            pass.wait(now_ns);
            return now_ns + STALLED_NS;
        }
        let mut begins = pass.next_ns.is_none();
        if begins {
            let known = flow.leg(to.other()).streams.current().is_some();
            let gap_ns = if known { GAP_NS } else { FIRST_GAP_NS };
            let due_ns = pass.waited_ns + gap_ns;
            if now_ns < due_ns {
                return due_ns;
            }
        }
        let mut next_ns = pass.next_ns.unwrap_or(now_ns);
        for _ in 0..CATCH_UP {
            let over = |pass: &Pass| pass.position_us >= duration_us;
            if next_ns > now_ns || self.pass.as_ref().is_some_and(over) {
                break;
            }
            next_ns += 1_000 * self.send_own(flow, to, begins, now_ns, counters, actions);
            begins = false;
        }
        // A clock that stood still for long is not made up for.
        let next_ns = next_ns.max(now_ns);
        if let Some(pass) = &mut self.pass {
            pass.next_ns = Some(next_ns);
        }
        next_ns
    }

    /// Sends a packet of ours; gives the time that it covers, µs.
    fn send_own(
        &mut self,
        flow: &mut Flow,
        to: Side,
        begins: bool,
        now_ns: u64,
        counters: &mut Counters,
        actions: &mut impl Actions,
    ) -> u64 {
        let own = flow.leg(to.other());
        let spoken = own.streams.current().map(|stream| stream.payload.codec);
        let voice = spoken.and_then(|codec| self.voice(codec));
        let (Some(voice), Some(pass)) = (voice.or(self.voices.first()), &self.pass) else {
            return self.packet_us;
        };
        let source = &voice.source;
        let mut packet = [0; PACKET_BYTES_MAX];
        let room = &mut packet[HEADER_BYTES..PACKET_BYTES_MAX - TAIL_ROOM_BYTES];
        let mut covered_us = self.packet_us;
        let mut length = source.payload(pass.position_us, covered_us, room);
        if length.is_none() {
            covered_us = source.frame_us();
            length = source.payload(pass.position_us, covered_us, room);
        }
        let clock = Clock::new(source.clock_hz());
        let timestamp = own.streams.timestamp_now(now_ns, clock);
        let position = own.streams.put_in(self.ssrc);
        let timestamp = match own.played_until {
            Some((ssrc, until)) if ssrc == position.ssrc && begins => later(timestamp, until),
            Some((ssrc, until)) if ssrc == position.ssrc => until,
            _ => timestamp,
        };
        let until = timestamp.wrapping_add(clock.ticks(covered_us * 1_000) as u32);
        own.played_until = Some((position.ssrc, until));
        own.streams.put_in_until(until, now_ns + covered_us * 1_000);
        let header = Header {
            position,
            timestamp,
            payload_type: voice.payload_type,
            marker: begins,
            codec: source.codec(),
        };
        let anchor = Anchor {
            ssrc: position.ssrc,
            clock_hz: source.clock_hz(),
            timestamp,
            at_us: pass.position_us,
        };
        // A source has frames, so there is a payload of one.
        let length = HEADER_BYTES + length.unwrap_or(0);
        ours::send(
            flow,
            to,
            &header,
            &mut packet,
            length,
            now_ns,
            counters,
            actions,
        );
        counters.played += 1;
        if let Some(pass) = &mut self.pass {
            pass.anchor = Some(anchor);
            pass.position_us += covered_us;
            pass.put_in = true;
            pass.count(now_ns);
        }
        covered_us
    }

    /// Which sound, and which part of it, belongs into a packet that passes.
    fn part_of(
        &mut self,
        stream: &Stream,
        header: &RtpHeader,
        payload: &[u8],
        at_ns: u64,
    ) -> Option<(&Voice, u64, u64)> {
        let pass = self.pass.as_mut()?;
        let codec = stream.payload.codec;
        if codec == Codec::ComfortNoise {
            return None;
        }
        let speaks = |voice: &&Voice| voice.source.codec() == codec;
        let Some(voice) = self.voices.iter().find(speaks) else {
            // Digits may be further apart than sound.
            let digits = codec == Codec::TelephoneEvent;
            pass.wait(at_ns + if digits { GAP_NS } else { 0 });
            return None;
        };
        let covered_us = voice.source.payload_us(payload)?;
        let numbering = &stream.numbering;
        let shown = Anchor {
            ssrc: numbering.ssrc,
            clock_hz: stream.payload.clock.rate_hz(),
            timestamp: header.timestamp.wrapping_add(numbering.timestamp_offset),
            at_us: 0,
        };
        pass.wait(at_ns);
        let at_us = pass.locate(shown, covered_us)?;
        let within = at_us < voice.source.duration_us();
        within.then_some((voice, at_us, covered_us))
    }
}

/// How the stream that a side hears is numbered now, for whoever goes on with it.
fn renumbered(flow: &Flow, to: Side) -> Option<Event> {
    let side = to.other();
    let stream = flow.legs[side as usize].streams.current()?;
    Some(Event::SourceChanged {
        session: flow.session,
        media: flow.media,
        side,
        continuity: stream.numbering.continuity(stream.ssrc),
    })
}

/// A packet that passes while its side is muted or the other one is played to.
pub(crate) struct Passing<'a> {
    /// Session and m-line.
    pub(crate) flow: (u64, u8),
    pub(crate) side: Side,
    /// See [`Flow::tap`].
    pub(crate) tap: u32,
    pub(crate) at_ns: u64,
    pub(crate) header: &'a RtpHeader,
    /// Its stream.
    pub(crate) index: usize,
    pub(crate) length: usize,
}

/// Puts what is played, or silence, into a packet. Gives its length now, and whether it carries what is
/// played; `None` when it does not leave, or another one left in its place.
#[cold]
pub(crate) fn alter(
    passing: &Passing<'_>,
    own: &mut Leg,
    far: &mut Leg,
    buffer: &mut [u8],
    counters: &mut Counters,
    actions: &mut impl Actions,
) -> Option<(usize, bool)> {
    let header = passing.header;
    let mute = own.mute;
    let stream = own.streams.at(passing.index);
    let codec = stream.payload.codec;
    if codec != Codec::TelephoneEvent && stream.is_newest(header) {
        // Behind what we put in.
        if let Some((ssrc, until)) = own.played_until.take()
            && ssrc == stream.numbering.ssrc
        {
            stream.not_before(until, header);
        }
        own.altered = mute || far.player.as_ref().is_some_and(|one| one.is_heard());
    }
    let stream = &*stream;
    let payload = header.payload();
    let mut player = far.player.take();
    let played = player.as_mut().and_then(|player| {
        let mode = player.mode;
        let part = player.part_of(stream, header, &buffer[payload.clone()], passing.at_ns);
        let (voice, at_us, covered_us) = part?;
        let source = &voice.source;
        if codec == Codec::Opus {
            let mut packet = [0; PACKET_BYTES_MAX];
            let room = &mut packet[HEADER_BYTES..PACKET_BYTES_MAX - TAIL_ROOM_BYTES];
            let length = HEADER_BYTES + source.payload(at_us, covered_us, room)?;
            instead(passing, stream, far, &mut packet, length, counters, actions);
            return Some(None);
        }
        if mode == PlayMode::Mix && source.mixes() {
            if mute {
                silence(codec, buffer, header, passing.length)?;
            }
            source.mix(at_us, &mut buffer[payload]);
        } else {
            source.replace(at_us, &mut buffer[payload]);
        }
        Some(Some((passing.length, true)))
    });
    if played.is_some() {
        counters.played += 1;
        if let Some(pass) = player.as_mut().and_then(|player| player.pass.as_mut()) {
            pass.count(passing.at_ns);
        }
    }
    far.player = player;
    if let Some(played) = played {
        return played;
    }
    if !mute {
        return Some((passing.length, false));
    }
    match silence(codec, buffer, header, passing.length) {
        Some(muted) => {
            counters.muted += 1;
            Some((muted, false))
        }
        None => {
            counters.mute_withheld += 1;
            None
        }
    }
}

/// Sends a packet of ours in place of one that passes.
fn instead(
    passing: &Passing<'_>,
    stream: &Stream,
    far: &mut Leg,
    packet: &mut [u8],
    length: usize,
    counters: &mut Counters,
    actions: &mut impl Actions,
) {
    let header = shown(passing, stream);
    header.write(packet);
    capture(passing, &header, &packet[..length], actions);
    ours::dispatch(far, packet, length, counters, actions);
}

/// The header of a packet that passes, as the far side sees it.
pub(crate) fn shown(passing: &Passing<'_>, stream: &Stream) -> Header {
    let (received, numbering) = (passing.header, &stream.numbering);
    Header {
        position: Position {
            ssrc: numbering.ssrc,
            sequence: received.sequence.wrapping_add(numbering.sequence_offset),
        },
        timestamp: received.timestamp.wrapping_add(numbering.timestamp_offset),
        payload_type: stream.payload.to_pt,
        marker: received.marker,
        codec: stream.payload.codec,
    }
}

/// The recording shows what was played beside what was received.
pub(crate) fn capture(
    passing: &Passing<'_>,
    header: &Header,
    packet: &[u8],
    actions: &mut impl Actions,
) {
    let (_, media) = passing.flow;
    let frame = header.frame(passing.side.other(), media, passing.at_ns);
    ours::capture(passing.tap, &frame, packet, actions);
}

impl Engine {
    /// Plays to a side, in place of what was played before. The same `play` again goes on where it is,
    /// by the sounds that are given now. What was heard of the one before is for [`Self::poll_played`].
    ///
    /// # Errors
    /// No such session or m-line, one without audio, or a field out of range.
    pub fn play(&mut self, now_ns: u64, spec: &PlaySpec) -> Result<(), EngineError> {
        let in_range = |voice: &Voice| voice.payload_type < 128;
        let valid = (1..=VOICES_MAX).contains(&spec.voices.len())
            && spec.voices.iter().all(in_range)
            && PACKET_US.contains(&spec.packet_us);
        if !valid {
            return Err(EngineError::Invalid);
        }
        let index = self.flow_index(spec.session, spec.media)?;
        if self.flows[index as usize].kind != MediaKind::Audio {
            return Err(EngineError::Invalid);
        }
        let known = self.flows[index as usize].leg(spec.to).player.as_ref();
        if known.is_some_and(|player| player.play != spec.play) {
            self.stop_play(spec.session, spec.media, spec.to)?;
        }
        let flow = &mut self.flows[index as usize];
        let leg = flow.leg(spec.to);
        let player = leg
            .player
            .get_or_insert_with(|| Box::new(Player::new(spec, now_ns)));
        (player.mode, player.every_ns) = (spec.mode, spec.every_ns);
        player.packet_us = u64::from(spec.packet_us);
        player.voices.clone_from(&spec.voices);
        player.due_ns = player.due_ns.min(player.starts_ns.max(now_ns));
        self.plays
            .push(Reverse((player.due_ns, index, spec.to as u8)));
        Ok(())
    }

    /// Ends what is played to a side at once; what was heard of it is for [`Self::poll_played`].
    ///
    /// # Errors
    /// No such session or m-line.
    pub fn stop_play(&mut self, session: u64, media: u8, to: Side) -> Result<(), EngineError> {
        let index = self.flow_index(session, media)?;
        self.end_play(index, to);
        Ok(())
    }

    /// Ends what is played by a flow to a side.
    pub(crate) fn end_play(&mut self, index: u32, to: Side) {
        let flow = &mut self.flows[index as usize];
        let Some(mut player) = flow.leg(to).player.take() else {
            return;
        };
        let told = player.end_pass((flow.session, flow.media), to);
        self.played.extend(told);
        flow.note_altered();
    }

    /// What was heard of a play that a command has ended.
    pub fn poll_played(&mut self) -> Option<Event> {
        self.played.pop_front()
    }

    /// When something that is played is to be looked at.
    pub(crate) fn play_ns(&self) -> u64 {
        self.plays
            .peek()
            .map_or(NEVER, |&Reverse((due_ns, ..))| due_ns)
    }

    /// Looks at what is played and due.
    pub(crate) fn play_due(&mut self, now_ns: u64, actions: &mut impl Actions) {
        for _ in 0..LOOKS_A_CALL {
            if self.play_ns() > now_ns {
                return;
            }
            let Some(Reverse((due_ns, index, to))) = self.plays.pop() else {
                return;
            };
            let to = Side::BOTH[usize::from(to)];
            let flow = &mut self.flows[index as usize];
            // What was stopped or begun anew since leaves its entry behind.
            let current = |player: &mut Box<Player>| player.due_ns == due_ns;
            let Some(mut player) = flow.leg(to).player.take_if(current) else {
                continue;
            };
            let next_ns = player.look(flow, to, now_ns, &mut self.counters, actions);
            player.due_ns = next_ns;
            if next_ns != NEVER {
                flow.leg(to).player = Some(player);
                self.plays.push(Reverse((next_ns, index, to as u8)));
            }
            flow.note_altered();
        }
    }
}
