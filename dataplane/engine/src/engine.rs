//! The engine's tables and the commands that change them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};

use crate::actions::Event;
use crate::admission::Changed;
use crate::counters::Counters;
use crate::flow::{Flow, NO_FLOW, Port, Session};
use crate::probation::Probations;
use crate::spec::{
    EngineError, LegSpec, Limits, MEDIA_MAX, MediaSpec, PAYLOADS_MAX, SessionSpec, Side,
    StreamStats,
};

/// Never.
pub(crate) const NEVER: u64 = u64::MAX;

/// All sessions of one worker.
#[derive(Debug)]
pub struct Engine {
    /// By slot.
    pub(crate) ports: Vec<Port>,
    pub(crate) flows: Vec<Flow>,
    free_flows: Vec<u32>,
    pub(crate) sessions: Vec<Option<Session>>,
    free_sessions: Vec<u32>,
    /// Session ids, for commands; packets never look here.
    pub(crate) index: HashMap<u64, u32>,
    pub(crate) probations: Probations,
    pub(crate) counters: Counters,
    sessions_max: usize,
    /// When sessions are to be looked at for silence, and where the look goes on.
    pub(crate) scan_ns: u64,
    pub(crate) scan_at: usize,
    /// Earliest silence seen coming in this pass.
    pub(crate) scan_due_ns: u64,
    /// When candidates are to be looked at.
    pub(crate) probation_ns: u64,
    /// Slots whose admission has changed.
    pub(crate) admissions: Changed,
    /// Indexes of the sessions that have forks, and when the first of them reports.
    pub(crate) forking_sessions: BTreeSet<u32>,
    pub(crate) report_ns: u64,
    /// Indexes of the flows into which digits are dialled, and when the next packet of one is due.
    pub(crate) dialling: BTreeSet<u32>,
    pub(crate) dial_ns: u64,
    /// When what is played is looked at: moment, flow, side that hears it.
    pub(crate) plays: BinaryHeap<Reverse<(u64, u32, u8)>>,
    /// What was heard of plays that commands have ended.
    pub(crate) played: VecDeque<Event>,
}

impl Engine {
    /// An empty engine; all tables are allocated here.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let sessions_max = limits.sessions_max as usize;
        Self {
            ports: vec![Port::FREE; limits.slots_max as usize],
            flows: Vec::with_capacity(sessions_max),
            free_flows: Vec::with_capacity(sessions_max),
            sessions: Vec::with_capacity(sessions_max),
            free_sessions: Vec::with_capacity(sessions_max),
            index: HashMap::with_capacity(sessions_max),
            probations: Probations::new(limits.probations_max),
            counters: Counters::default(),
            sessions_max,
            scan_ns: NEVER,
            scan_at: 0,
            scan_due_ns: NEVER,
            probation_ns: NEVER,
            admissions: Changed::new(limits.slots_max),
            forking_sessions: BTreeSet::new(),
            report_ns: NEVER,
            dialling: BTreeSet::new(),
            dial_ns: NEVER,
            plays: BinaryHeap::new(),
            played: VecDeque::new(),
        }
    }

    /// Adds a session, or the missing m-lines of a session that is there (`spec` then lists those it
    /// has already as they are).
    ///
    /// # Errors
    /// Too many, a slot in use or out of range, or known m-lines that differ.
    pub fn add_session(&mut self, now_ns: u64, spec: &SessionSpec) -> Result<(), EngineError> {
        let known = self.index.get(&spec.session).copied();
        let first_new = match known {
            Some(owner) => self.known_media(owner, spec)?,
            None if self.index.len() >= self.sessions_max => return Err(EngineError::NoCapacity),
            None => 0,
        };
        self.check_media(&spec.media, first_new)?;
        let owner = known.unwrap_or_else(|| self.insert_session(now_ns, spec));
        for (media, added) in spec.media.iter().enumerate().skip(first_new) {
            self.insert_flow(owner, media as u8, added);
        }
        Ok(())
    }

    /// How many of `spec`'s m-lines a session has already.
    fn known_media(&self, owner: u32, spec: &SessionSpec) -> Result<usize, EngineError> {
        let session = self.sessions[owner as usize]
            .as_ref()
            .ok_or(EngineError::NotFound)?;
        let same = session.flows.len() <= spec.media.len()
            && session
                .flows
                .iter()
                .zip(&spec.media)
                .all(|(&flow, media)| self.flows[flow as usize].is(media));
        if same {
            Ok(session.flows.len())
        } else {
            Err(EngineError::Invalid)
        }
    }

    /// Slots of new m-lines must be free and named once.
    fn check_media(&self, media: &[MediaSpec], first_new: usize) -> Result<(), EngineError> {
        let mut slots = [0_u32; MEDIA_MAX * 4];
        let mut count = 0;
        if media.len() > MEDIA_MAX || media.is_empty() {
            return Err(EngineError::Invalid);
        }
        for ports in media[first_new..].iter().flat_map(|media| media.slots) {
            for slot in [ports.rtp, ports.rtcp] {
                let free = self
                    .ports
                    .get(slot as usize)
                    .is_some_and(|port| port.flow == NO_FLOW);
                if !free || slots[..count].contains(&slot) {
                    return Err(EngineError::Invalid);
                }
                slots[count] = slot;
                count += 1;
            }
        }
        Ok(())
    }

    fn insert_session(&mut self, now_ns: u64, spec: &SessionSpec) -> u32 {
        let session = Some(Session::new(now_ns, spec));
        let owner = match self.free_sessions.pop() {
            Some(owner) => {
                self.sessions[owner as usize] = session;
                owner
            }
            None => {
                self.sessions.push(session);
                (self.sessions.len() - 1) as u32
            }
        };
        self.index.insert(spec.session, owner);
        owner
    }

    fn insert_flow(&mut self, owner: u32, media: u8, spec: &MediaSpec) {
        let Some(session) = &mut self.sessions[owner as usize] else {
            return;
        };
        let mut flow = Flow::new(session.id, owner, media, spec);
        flow.tap = session.running_tap();
        flow.is_fork_target = session.fork_of.is_some();
        let index = match self.free_flows.pop() {
            Some(index) => {
                self.flows[index as usize] = flow;
                index
            }
            None => {
                self.flows.push(flow);
                (self.flows.len() - 1) as u32
            }
        };
        session.flows.push(index);
        for side in Side::BOTH {
            let slots = spec.slots[side as usize];
            for (slot, rtcp) in [(slots.rtp, false), (slots.rtcp, true)] {
                self.ports[slot as usize] = Port {
                    flow: index,
                    side,
                    rtcp,
                    ..Port::FREE
                };
            }
        }
    }

    /// Describes one side of one m-line.
    ///
    /// # Errors
    /// No such session or m-line, or a field out of range.
    pub fn update_leg(&mut self, now_ns: u64, spec: &LegSpec) -> Result<(), EngineError> {
        let in_range = |pt: u8| pt < 128;
        let valid = spec.payloads.len() <= PAYLOADS_MAX
            && spec
                .payloads
                .iter()
                .all(|p| in_range(p.pt) && in_range(p.to_pt));
        if !valid {
            return Err(EngineError::Invalid);
        }
        let timeout_ns = self.session(spec.session)?.media_timeout_ns;
        let index = self.flow_index(spec.session, spec.media)?;
        let leg = self.flows[index as usize].leg(spec.side);
        leg.latch.update(now_ns, spec);
        self.admissions.note(leg.slots.rtp);
        self.admissions.note(leg.slots.rtcp);
        if spec.restore.is_some() {
            leg.last_source = leg.latch.source;
        }
        leg.may_send = spec.flags.may_send;
        leg.mute = spec.flags.mute;
        if spec.flags.expect_media && !leg.expect_media {
            leg.expect_since_ns = now_ns;
        }
        leg.expect_media = spec.flags.expect_media;
        leg.payloads.clear();
        leg.payloads.extend_from_slice(&spec.payloads);
        leg.streams.forget_payloads();
        if let Some(continuity) = spec.restore.and_then(|restore| restore.continuity) {
            leg.streams.restore(continuity);
        }
        let expect_media = leg.expect_media;
        self.flows[index as usize].note_altered();
        if timeout_ns > 0 && expect_media {
            let due_ns = now_ns.saturating_add(timeout_ns);
            self.scan_ns = self.scan_ns.min(due_ns);
            // A pass that is under way may have gone by this session already.
            self.scan_due_ns = self.scan_due_ns.min(due_ns);
        }
        self.follow_target(spec.session, spec.media);
        Ok(())
    }

    /// Forgets a session, its tap included; its slots are free.
    ///
    /// # Errors
    /// No such session.
    pub fn remove_session(&mut self, session: u64) -> Result<(), EngineError> {
        self.end_forks(session);
        let owner = self.index.remove(&session).ok_or(EngineError::NotFound)?;
        let session = self.sessions[owner as usize]
            .take()
            .ok_or(EngineError::NotFound)?;
        self.free_sessions.push(owner);
        for index in session.flows {
            for to in Side::BOTH {
                self.end_play(index, to);
            }
            let flow = &mut self.flows[index as usize];
            for leg in &mut flow.legs {
                self.probations
                    .release_all(&mut leg.latch.candidates, &mut self.counters.strangers);
                self.ports[leg.slots.rtp as usize] = Port::FREE;
                self.ports[leg.slots.rtcp as usize] = Port::FREE;
            }
            self.dialling.remove(&index);
            self.free_flows.push(index);
        }
        Ok(())
    }

    pub(crate) fn session(&mut self, session: u64) -> Result<&mut Session, EngineError> {
        let owner = *self.index.get(&session).ok_or(EngineError::NotFound)?;
        self.sessions[owner as usize]
            .as_mut()
            .ok_or(EngineError::NotFound)
    }

    /// Index of the flow of an m-line.
    pub(crate) fn flow_index(&self, session: u64, media: u8) -> Result<u32, EngineError> {
        let flows = self.peek(session).map(|session| &session.flows);
        let flow = flows.and_then(|flows| flows.get(usize::from(media)));
        flow.copied().ok_or(EngineError::NotFound)
    }

    pub(crate) fn peek(&self, session: u64) -> Option<&Session> {
        self.sessions[*self.index.get(&session)? as usize].as_ref()
    }

    /// Statistics of the live streams that a side sends on an m-line.
    pub fn stream_stats(&self, session: u64, media: u8, side: Side, out: &mut Vec<StreamStats>) {
        let flow = self
            .peek(session)
            .and_then(|session| session.flows.get(usize::from(media)));
        if let Some(&flow) = flow {
            self.flows[flow as usize].legs[side as usize]
                .streams
                .stats(out);
        }
    }

    /// When a session last heard an accepted packet from anyone (or was added), ns.
    #[must_use]
    pub fn last_packet_ns(&self, session: u64) -> Option<u64> {
        self.peek(session)
            .map(|session| self.session_heard_ns(session))
    }

    /// A recorder's session lives as long as the one that is forked to it.
    fn session_heard_ns(&self, session: &Session) -> u64 {
        let source = session.fork_of.and_then(|source| self.peek(source));
        let heard_ns = source.map_or(0, |source| self.own_heard_ns(source));
        heard_ns.max(self.own_heard_ns(session))
    }

    fn own_heard_ns(&self, session: &Session) -> u64 {
        let legs = session
            .flows
            .iter()
            .flat_map(|&flow| &self.flows[flow as usize].legs);
        legs.map(|leg| leg.heard_ns())
            .max()
            .unwrap_or(0)
            .max(session.added_ns)
    }

    /// Calls `each` with every session id and the moment of its last accepted packet.
    pub fn for_each_session(&self, mut each: impl FnMut(u64, u64)) {
        for session in self.sessions.iter().flatten() {
            each(session.id, self.session_heard_ns(session));
        }
    }

    /// The RTP address a side's media is accepted from now.
    #[must_use]
    pub fn source(&self, session: u64, media: u8, side: Side) -> Option<std::net::SocketAddr> {
        let flow = *self.peek(session)?.flows.get(usize::from(media))?;
        self.flows[flow as usize].legs[side as usize].latch.source
    }

    /// Sessions now.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.index.len()
    }

    /// Totals.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
