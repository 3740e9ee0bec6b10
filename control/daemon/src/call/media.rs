//! What the dataplane has been told of a call's media, kept so that it can be told again after a
//! dataplane has died.

use trunkline_link::message::leg_flags;
use trunkline_link::message::{
    Command, Continuity, Event, LegRestore, LegUpdate, MediaOpen, SessionOpen, Side,
};

/// One side of one m-line.
type Key = (u8, u8);

/// What there is of each: a few, in order. A tree's smallest node has room for eleven.
#[derive(Debug, Clone)]
struct Few<T>(Vec<(Key, T)>);

impl<T> Few<T> {
    /// The place of a key, or where it belongs.
    fn place(&self, key: Key) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(key, _)| *key)
    }

    fn get(&self, key: Key) -> Option<&T> {
        self.place(key).ok().map(|at| &self.0[at].1)
    }

    fn entry(&mut self, key: Key, new: impl FnOnce() -> T) -> &mut T {
        let at = self.place(key).unwrap_or_else(|at| {
            self.0.reserve_exact(1);
            self.0.insert(at, (key, new()));
            at
        });
        &mut self.0[at].1
    }

    /// Puts it in; gives what stood there.
    fn insert(&mut self, key: Key, value: T) -> Option<T> {
        match self.place(key) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    fn remove(&mut self, key: Key) {
        self.0.retain(|(one, _)| *one != key);
    }
}

/// The media session of a call.
#[derive(Debug, Clone)]
pub struct Media {
    /// Session id on the link.
    pub session: u64,
    /// Interface index of each side.
    pub interface: [u8; 2],
    /// m-lines relayed; empty until ports were asked for.
    pub open: Vec<MediaOpen>,
    /// Media timeout, 0 = off.
    pub media_timeout_ms: u32,
    /// Session whose worker is to have this one too, 0 = any.
    pub beside: u64,
    legs: Few<LegUpdate>,
    restore: Few<LegRestore>,
}

impl Media {
    /// A session that the dataplane has not heard of yet.
    pub fn new(session: u64, interface: [u8; 2], media_timeout_ms: u32) -> Self {
        Self {
            session,
            interface,
            open: Vec::new(),
            media_timeout_ms,
            beside: 0,
            legs: Few(Vec::new()),
            restore: Few(Vec::new()),
        }
    }

    /// The same session as the callee's side of a call that rings who is to take `leaving`'s place.
    /// The dataplane is not told of it.
    pub fn for_newcomer(&self, leaving: Side) -> Self {
        let turned = |pair: [u16; 2]| match leaving {
            Side::Callee => pair,
            Side::Caller => [pair[1], pair[0]],
        };
        let interface = turned(self.interface.map(u16::from));
        let media = self.open.iter().map(|open| MediaOpen {
            ports: turned(open.ports),
            ..*open
        });
        Self {
            interface: interface.map(|index| u8::try_from(index).unwrap_or(0)),
            open: media.collect(),
            ..Self::new(self.session, self.interface, self.media_timeout_ms)
        }
    }

    /// Asks for ports, or for more of them.
    pub fn open_command(&self) -> Command {
        Command::SessionOpen(SessionOpen {
            session: self.session,
            interface: self.interface,
            media_timeout_ms: self.media_timeout_ms,
            beside: self.beside,
            media: self.open.clone(),
        })
    }

    /// Notes the ports that the dataplane gave; false when the answer does not fit the question.
    pub fn opened(&mut self, ports: &[[u16; 2]]) -> bool {
        // More may have been asked for meanwhile.
        if ports.len() > self.open.len() {
            return false;
        }
        for (open, given) in self.open.iter_mut().zip(ports) {
            open.ports = *given;
        }
        true
    }

    /// Our RTP port towards a side, 0 when the m-line is not relayed.
    pub fn port(&self, media: usize, side: Side) -> u16 {
        self.open
            .get(media)
            .map_or(0, |open| open.ports[side as usize])
    }

    /// The command that describes a side, remembered; `None` when nothing changed and no learning
    /// window is wanted.
    pub fn leg_command(&mut self, update: LegUpdate) -> Command {
        let key = (update.media, update.side as u8);
        // A window is opened by each offer or answer, not by a re-installation.
        let kept = LegUpdate {
            flags: update.flags & !leg_flags::LEARN,
            ..update.clone()
        };
        let moved = self
            .legs
            .insert(key, kept)
            .is_none_or(|old| old.rtp != update.rtp);
        if moved {
            // What was learned belonged to the former address.
            self.restore.remove(key);
        }
        Command::LegUpdate(update)
    }

    /// Notes what the dataplane learned.
    pub fn learn(&mut self, event: &Event) {
        match event {
            Event::EndpointLearned {
                media,
                side,
                rtcp,
                address,
                ..
            } => {
                let restore = self.entry(*media, *side);
                let place = if *rtcp {
                    &mut restore.learned_rtcp
                } else {
                    &mut restore.learned_rtp
                };
                *place = Some(*address);
            }
            Event::SourceChanged {
                media,
                side,
                continuity,
                ..
            } => {
                self.note_continuity(*media, *side, *continuity);
            }
            _ => {}
        }
    }

    fn note_continuity(&mut self, media: u8, side: Side, continuity: Continuity) {
        self.entry(media, side).continuity = Some(continuity);
    }

    fn entry(&mut self, media: u8, side: Side) -> &mut LegRestore {
        self.restore.entry((media, side as u8), || LegRestore {
            learned_rtp: None,
            learned_rtcp: None,
            continuity: None,
        })
    }

    /// What a new dataplane has to know of the sides, once it has given the same ports.
    pub fn reinstall(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        for (key, leg) in &self.legs.0 {
            let mut leg = leg.clone();
            leg.restore = self.restore.get(*key).copied();
            // Without anything learned the source must be found again.
            if leg
                .restore
                .is_none_or(|restore| restore.learned_rtp.is_none())
            {
                leg.flags |= leg_flags::LEARN;
            }
            commands.push(Command::LegUpdate(leg));
        }
        commands
    }
}
