//! Session timers (RFC 4028): who refreshes, how often, and when a silent session is given up.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::message::{Headers, Request, Response, SessionExpires};

/// The smallest interval the RFC allows, in seconds.
const MIN_SE_FLOOR: u32 = 90;

/// What we want of session timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionPolicy {
    /// The interval we propose, and the longest we accept, in seconds.
    pub interval_s: u32,
    /// The shortest we accept, in seconds.
    pub min_s: u32,
}

impl Default for SessionPolicy {
    fn default() -> SessionPolicy {
        SessionPolicy {
            interval_s: 1800,
            min_s: MIN_SE_FLOOR,
        }
    }
}

/// The proposed interval is too small: answer 422 with this Min-SE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    pub min_se: u32,
}

/// What both sides agreed on; small enough for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTerms {
    #[serde(rename = "s")]
    pub interval_s: u32,
    /// Whether we refresh.
    #[serde(rename = "r")]
    pub we_refresh: bool,
}

impl SessionPolicy {
    /// Proposes a timer in a request of ours (INVITE or UPDATE). In a refresh, `terms` keeps
    /// the agreed interval and roles.
    pub fn propose(&self, request: &mut Request, terms: Option<SessionTerms>) {
        let headers = &mut request.headers;
        if !headers.list_contains("Supported", "timer") {
            headers.append("Supported", "timer");
        }
        let seconds = terms.map_or(self.interval_s, |terms| terms.interval_s);
        let refresher_uac = terms.map(|terms| terms.we_refresh);
        headers.set(
            "Session-Expires",
            SessionExpires {
                seconds,
                refresher_uac,
            }
            .to_string(),
        );
        if self.min_s > MIN_SE_FLOOR {
            headers.set("Min-SE", self.min_s.to_string());
        }
    }

    /// The policy for trying again after 422: at least the Min-SE the peer named. `None` when
    /// it named none, or nothing larger than what was proposed.
    pub fn after_422(&self, response: &Response) -> Option<SessionPolicy> {
        let min_se = response.headers.min_se().ok().flatten()?;
        (min_se > self.interval_s).then_some(SessionPolicy {
            interval_s: min_se,
            min_s: self.min_s.max(min_se),
        })
    }

    /// Judges a received INVITE or UPDATE and says what to agree on; `None` without a timer:
    /// neither asked for by the peer nor possible.
    ///
    /// # Errors
    /// The proposal is too small and its sender can do better: 422.
    pub fn accept(&self, request: &Headers) -> Result<Option<SessionTerms>, TooSmall> {
        let supported = request.supports("timer");
        let proposed = request.session_expires().ok().flatten();
        let Some(proposed) = proposed else {
            // We may ask for a timer of our own and refresh it ourselves.
            let min_se = request.min_se().ok().flatten().unwrap_or(0);
            let interval_s = self.interval_s.max(min_se).max(MIN_SE_FLOOR);
            return Ok(supported.then_some(SessionTerms {
                interval_s,
                we_refresh: true,
            }));
        };
        if proposed.seconds < self.min_s.max(MIN_SE_FLOOR) {
            if supported {
                return Err(TooSmall {
                    min_se: self.min_s.max(MIN_SE_FLOOR),
                });
            }
            // A proxy put it there; its client could not act on a 422.
            let interval_s = self.min_s.max(MIN_SE_FLOOR);
            return Ok(Some(SessionTerms {
                interval_s,
                we_refresh: true,
            }));
        }
        let min_se = request.min_se().ok().flatten().unwrap_or(MIN_SE_FLOOR);
        let interval_s = proposed.seconds.min(self.interval_s.max(min_se));
        let we_refresh = match proposed.refresher_uac {
            Some(uac) => !uac || !supported,
            // The caller proposed, so it will do (RFC 4028 section 9 leaves the choice).
            None => !supported,
        };
        Ok(Some(SessionTerms {
            interval_s,
            we_refresh,
        }))
    }

    /// Writes what [`SessionPolicy::accept`] agreed on into our 2xx.
    pub fn confirm(&self, response: &mut Response, terms: SessionTerms, peer_supports: bool) {
        let SessionTerms {
            interval_s: seconds,
            we_refresh,
        } = terms;
        let value = SessionExpires {
            seconds,
            refresher_uac: Some(!we_refresh),
        };
        response.headers.set("Session-Expires", value.to_string());
        if peer_supports && !response.headers.list_contains("Require", "timer") {
            response.headers.append("Require", "timer");
        }
    }

    /// What the peer's 2xx to our request agreed on; `None` without a timer.
    pub fn agreed(response: &Headers) -> Option<SessionTerms> {
        let agreed = response.session_expires().ok().flatten()?;
        let interval_s = agreed.seconds.max(MIN_SE_FLOOR);
        Some(SessionTerms {
            interval_s,
            we_refresh: agreed.refresher_uac != Some(false),
        })
    }
}

/// What a session timer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerAction {
    /// Send a re-INVITE or UPDATE that refreshes, proposing the same terms.
    Refresh,
    /// Nobody refreshed in time: end the call by BYE.
    Expired,
}

/// A running session timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimer {
    terms: SessionTerms,
    refresh_at: Option<Instant>,
    expire_at: Option<Instant>,
}

impl SessionTimer {
    /// Starts with the 2xx that agreed on the terms, and again after a restore.
    pub fn start(now: Instant, terms: SessionTerms) -> SessionTimer {
        let mut timer = SessionTimer {
            terms,
            refresh_at: None,
            expire_at: None,
        };
        timer.refreshed(now, terms);
        timer
    }

    pub fn terms(&self) -> SessionTerms {
        self.terms
    }

    /// The same deadlines with other terms to propose at the next refresh.
    #[must_use]
    pub fn with_terms(self, terms: SessionTerms) -> SessionTimer {
        SessionTimer { terms, ..self }
    }

    /// A 2xx to a session refresh request of either side went by: the interval begins anew.
    pub fn refreshed(&mut self, now: Instant, terms: SessionTerms) {
        self.terms = terms;
        let interval = Duration::from_secs(u64::from(terms.interval_s));
        // BYE a little before the end, so that proxies still know the session (section 10).
        let margin = (interval / 3).min(Duration::from_secs(32));
        self.refresh_at = terms.we_refresh.then_some(now + interval / 2);
        self.expire_at = Some(now + interval - margin);
    }

    /// A refresh of ours failed without ending the dialog (491, 500): it is tried again after
    /// this delay.
    pub fn retry(&mut self, now: Instant, delay: Duration) {
        if self.terms.we_refresh && self.expire_at.is_some() {
            self.refresh_at = Some(now + delay);
        }
    }

    /// The call is over.
    pub fn stop(&mut self) {
        self.refresh_at = None;
        self.expire_at = None;
    }

    /// When [`SessionTimer::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.refresh_at, self.expire_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// What is due now. Expiry is said once.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<TimerAction> {
        if self.expire_at.is_some_and(|at| at <= now) {
            self.stop();
            return Some(TimerAction::Expired);
        }
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh_at = None;
            return Some(TimerAction::Refresh);
        }
        None
    }
}
