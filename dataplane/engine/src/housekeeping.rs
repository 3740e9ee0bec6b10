//! What the engine does by time: media timeouts, candidates that gave up, reports of forks, digits,
//! what is played.

use crate::actions::{Actions, Event};
use crate::engine::{Engine, NEVER};
use crate::spec::Side;

/// Sessions looked at in one call.
const SESSIONS_A_CALL: usize = 256;
/// Sessions are not looked at more often.
const SCAN_NS: u64 = 250_000_000;

impl Engine {
    /// Housekeeping, bounded work. Call when [`Self::next_deadline_ns`] is due.
    pub fn handle_timeout(&mut self, now_ns: u64, actions: &mut impl Actions) {
        if now_ns >= self.probation_ns {
            self.expire_probations(now_ns);
        }
        if now_ns >= self.scan_ns {
            self.scan(now_ns, actions);
        }
        if now_ns >= self.report_ns {
            self.report_forks(now_ns, actions);
        }
        if now_ns >= self.dial_ns {
            self.dial_due(now_ns, actions);
        }
        self.play_due(now_ns, actions);
    }

    /// When [`Self::handle_timeout`] wants to be called; `None` when there is nothing to watch.
    #[must_use]
    pub fn next_deadline_ns(&self) -> Option<u64> {
        let due_ns = self.scan_ns.min(self.probation_ns);
        let due_ns = due_ns.min(self.report_ns).min(self.dial_ns);
        let due_ns = due_ns.min(self.play_ns());
        Some(due_ns).filter(|&deadline| deadline != NEVER)
    }

    /// Looks at some sessions for silent sides.
    fn scan(&mut self, now_ns: u64, actions: &mut impl Actions) {
        let end = (self.scan_at + SESSIONS_A_CALL).min(self.sessions.len());
        for index in self.scan_at..end {
            let due_ns = self.scan_session(index, now_ns, actions);
            self.scan_due_ns = self.scan_due_ns.min(due_ns);
        }
        self.scan_at = end;
        if end < self.sessions.len() {
            self.scan_ns = now_ns;
            return;
        }
        self.scan_at = 0;
        let due_ns = std::mem::replace(&mut self.scan_due_ns, NEVER);
        self.scan_ns = if due_ns == NEVER {
            NEVER
        } else {
            due_ns.max(now_ns + SCAN_NS)
        };
    }

    /// Looks at one session; gives the moment at which it may want to be looked at again.
    fn scan_session(&mut self, index: usize, now_ns: u64, actions: &mut impl Actions) -> u64 {
        let Some(session) = &mut self.sessions[index] else {
            return NEVER;
        };
        if session.media_timeout_ns == 0 {
            return NEVER;
        }
        let mut due_ns = NEVER;
        for side in Side::BOTH {
            let legs = session
                .flows
                .iter()
                .map(|&flow| &self.flows[flow as usize].legs[side as usize]);
            let life = legs
                .filter(|leg| leg.expect_media)
                .map(|leg| leg.heard_ns().max(leg.expect_since_ns))
                .max();
            let Some(life_ns) = life else {
                session.timed_out[side as usize] = false;
                continue;
            };
            let end_ns = life_ns.saturating_add(session.media_timeout_ns);
            let reported = &mut session.timed_out[side as usize];
            if now_ns < end_ns {
                *reported = false;
                due_ns = due_ns.min(end_ns);
                continue;
            }
            if !std::mem::replace(reported, true) {
                self.counters.media_timeouts += 1;
                actions.event(Event::MediaTimeout {
                    session: session.id,
                    side,
                });
            }
            // A silence that was reported may end, and another begin.
            due_ns = due_ns.min(now_ns.saturating_add(session.media_timeout_ns));
        }
        due_ns
    }
}
