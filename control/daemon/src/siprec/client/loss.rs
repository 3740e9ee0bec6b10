//! A recorder that does not have a call though it should: the gap, in the session, in the recording here
//! and in its receipt, and who takes over.

use std::time::{Duration, Instant};

use trunkline_sinks::Timestamp;
use trunkline_sn3::facts::CallChange;

use super::attempt::acknowledge;
use super::servers::REST;
use super::state::{Phase, RecordingSession, Step};
use super::{Client, Context, Order};
use crate::clock::Moment;
use crate::siprec::session::Gap;
use crate::unreachable::Undelivered;

/// Gaps of one session that are told apart.
const GAPS_MAX: usize = 64;
/// So many packets at least were not delivered, over so long, before a recorder counts as gone: one may have
/// moved its port meanwhile.
const UNDELIVERED_MIN: u32 = 3;
const CLOSED: Duration = Duration::from_secs(1);
/// Errors further apart have nothing to do with each other.
const FORGIVEN: Duration = Duration::from_secs(5);

impl RecordingSession {
    /// Whether a packet was one of its media, as the recorder wants it now.
    fn sends(&self, undelivered: &Undelivered) -> bool {
        self.lines.iter().zip(&self.accepted).any(|(line, to)| {
            let open = self.media.open.get(usize::from(line.media));
            let port = open.map(|open| open.ports[line.side() as usize]);
            port == Some(undelivered.local_port) && to.rtp == Some(undelivered.remote)
        })
    }

    /// Counts what was not delivered; true when that goes on for too long.
    fn note_undelivered(&mut self, now: &Moment) -> bool {
        let fresh = |(_, last, _): &(Moment, Instant, u32)| now.instant - *last < FORGIVEN;
        let (first, _, count) = self
            .undelivered
            .filter(fresh)
            .unwrap_or((*now, now.instant, 0));
        let gone = count + 1 >= UNDELIVERED_MIN && now.instant - first.instant >= CLOSED;
        self.undelivered = (!gone).then_some((first, now.instant, count + 1));
        self.gone_since = gone.then_some(first.utc);
        gone
    }

    /// The gap that lasts.
    pub(super) fn open_gap(&mut self) -> Option<&mut Gap> {
        self.gaps.last_mut().filter(|gap| gap.to.is_none())
    }
}

impl Client {
    /// The server that had the session is lost: another one takes it over, after a gap.
    pub(super) fn lost(
        &mut self,
        session: &mut RecordingSession,
        why: &str,
        bye: bool,
        cx: &mut Context<'_>,
    ) {
        match session.phase {
            Phase::Standing if session.carrier.is_some() => {
                session.server_gone = Some(why.to_owned());
                return;
            }
            Phase::Standing | Phase::Arming => {}
            Phase::Ending => {
                session.phase = Phase::Over;
                return;
            }
            Phase::Asked => return self.asked_in_vain(session, why, cx),
            _ => return,
        }
        if session.replay.is_some() {
            return self.replay_lost(session, why, bye, cx);
        }
        // What it had agreed to just now is acknowledged, and forgotten.
        session
            .batches
            .retain(|batch| !matches!(batch.then, Step::Armed));
        if let Some(attempt) = session.attempt.take() {
            self.clients.remove(&attempt.client);
            acknowledge(session, attempt.client, 1, cx);
        }
        self.disarm(session, cx);
        if bye {
            self.send_stray_bye(session, cx);
        }
        self.riders_lost(session, why, cx);
        self.leave_dialog(session);
        session.change = None;
        session.asked = None;
        session.lost_since = Some(cx.now.instant);
        let since = session.gone_since.take().unwrap_or(cx.now.utc);
        self.begin_gap(session, since, why);
        // One that said itself that it goes is not asked whether it is there.
        self.rest(session, (!bye).then_some(REST), why, cx);
        self.next_round(session, cx);
    }

    /// A packet was not delivered: to whom nothing is for some time, is gone.
    pub fn on_undelivered(&mut self, undelivered: Undelivered, cx: &mut Context<'_>) {
        let sent = |session: &&RecordingSession| {
            session.phase == Phase::Standing && session.sends(&undelivered)
        };
        let found = self.sessions.values().find(sent).map(|one| one.key);
        if let Some(key) = found {
            self.with(key, cx, |client, session, cx| {
                if session.note_undelivered(cx.now) {
                    client.lost(session, "its media port is closed (ICMP)", true, cx);
                }
            });
        }
    }

    /// The session's recorder misses what is said from now on.
    pub(super) fn begin_gap(&mut self, session: &mut RecordingSession, from: Timestamp, why: &str) {
        let full = session.gaps.len() >= GAPS_MAX;
        if session.open_gap().is_some() || full || session.replay.is_some() {
            return;
        }
        let gap = Gap {
            recorder: session.recorder.name.clone(),
            server: session.server_name(),
            reason: why.to_owned(),
            from,
            to: None,
        };
        let told = format!(
            "siprec gap: recorder {} lost {}: {why}",
            gap.recorder, gap.server
        );
        self.tell_gap(session, &gap, told);
        session.gaps.push(gap);
    }

    /// The session's recorder has the call again.
    pub(super) fn end_gap(&mut self, session: &mut RecordingSession, to: Timestamp) {
        let server = session.server_name();
        let Some(gap) = session.open_gap() else {
            return;
        };
        gap.to = Some(to);
        let gap = gap.clone();
        let told = format!("siprec gap over: recorder {} is {server}", gap.recorder);
        self.tell_gap(session, &gap, told);
        let view = std::sync::Arc::clone(&session.view);
        session.note_gone(&view);
    }

    /// A gap stands in the recording here, and in its receipt.
    fn tell_gap(&mut self, session: &RecordingSession, gap: &Gap, reason: String) {
        let change = CallChange {
            reason,
            ..CallChange::default()
        };
        let call = session.view.key;
        self.orders.push((call, Order::Fact(Box::new(change))));
        self.orders.push((call, Order::Gap(Box::new(gap.clone()))));
    }
}
