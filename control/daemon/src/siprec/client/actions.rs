//! What the operator asks of recorders.

use std::sync::Arc;

use trunkline_config::{Recorder, RecorderPause};
use trunkline_sip::message::Method;
use trunkline_sip::transaction::ClientTx;

use super::state::{Phase, RecordingSession, Step};
use super::{Client, Context};
use crate::api::handle::{ActionError, RecordingAction, SessionsReply as Reply};
use crate::siprec::session::Session;

/// Sessions that the operator may add to one call.
pub(super) const SESSIONS_MAX: usize = 8;

/// Which recorders of a call are meant.
#[derive(Debug, Clone)]
pub enum Chosen {
    /// All that have a session.
    All,
    /// The one of this name.
    Named(String),
}

/// An order under way.
#[derive(Debug)]
pub struct Act {
    /// Sessions that have not answered.
    open: usize,
    sessions: Vec<Session>,
    failed: Option<ActionError>,
    reply: Reply,
}

/// A session's part in an order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    act: u64,
    /// The operator's request inside the session, where that is what is waited for.
    message: Option<ClientTx>,
}

impl Client {
    /// Carries out an order. `recorder` is who starts, where the order is a start.
    pub fn act(
        &mut self,
        call: u64,
        action: RecordingAction,
        chosen: &Chosen,
        recorder: Option<Arc<Recorder>>,
        reply: Reply,
        cx: &mut Context<'_>,
    ) {
        let found = self.chosen(call, chosen);
        let refuse = |reply: Reply, why: &str| {
            let _ = reply.send(Err(ActionError::WrongState(why.to_owned())));
        };
        if action == RecordingAction::Keep {
            return refuse(reply, "only the recording here can be kept");
        }
        if action == RecordingAction::Start
            && let (Some(recorder), true) = (recorder, found.is_empty())
        {
            return self.start(call, &recorder, reply, cx);
        }
        if found.is_empty() {
            // Repeating a stop is fine.
            let stopped = action == RecordingAction::Stop;
            let ended: Vec<Session> = match stopped {
                true => self.ended_of(call, chosen),
                false => Vec::new(),
            };
            if ended.is_empty() {
                return refuse(reply, "the call has no such recording session");
            }
            let _ = reply.send(Ok(ended));
            return;
        }
        let act = self.new_act(found.len(), reply);
        for key in found {
            self.with(key, cx, |client, session, cx| {
                client.act_on(session, action, act, cx);
            });
        }
    }

    fn chosen(&self, call: u64, chosen: &Chosen) -> Vec<u64> {
        let mut keys = self.of_call(call);
        keys.retain(|key| {
            let Some(session) = self.sessions.get(key) else {
                return false;
            };
            let named = match chosen {
                Chosen::All => true,
                Chosen::Named(name) => session.recorder.name == *name,
            };
            named && !matches!(session.phase, Phase::Ending | Phase::Over)
        });
        keys
    }

    fn new_act(&mut self, open: usize, reply: Reply) -> u64 {
        self.next_act += 1;
        let act = Act {
            open,
            sessions: Vec::new(),
            failed: None,
            reply,
        };
        self.acts.insert(self.next_act, act);
        self.next_act
    }

    fn start(&mut self, call: u64, recorder: &Arc<Recorder>, reply: Reply, cx: &mut Context<'_>) {
        let known = self.calls.entry(call).or_default();
        let Some(view) = known.view.clone() else {
            let _ = reply.send(Err(ActionError::NotFound));
            return;
        };
        if known.sessions.len() >= SESSIONS_MAX {
            let why = format!("a call has at most {SESSIONS_MAX} recording sessions");
            let _ = reply.send(Err(ActionError::WrongState(why)));
            return;
        }
        known.begun.insert(recorder.name.clone());
        let key = self.begin(&view, recorder, cx);
        let act = self.new_act(1, reply);
        self.with(key, cx, |client, session, cx| {
            session.waiting.push(Waiting { act, message: None });
            client.update(session, cx);
        });
    }

    fn act_on(
        &mut self,
        session: &mut RecordingSession,
        action: RecordingAction,
        act: u64,
        cx: &mut Context<'_>,
    ) {
        session.waiting.push(Waiting { act, message: None });
        let down = matches!(session.phase, Phase::Lost);
        match action {
            RecordingAction::Stop => {
                self.end(session, cx);
                self.answer_waiting(session, &Ok(()), cx);
            }
            RecordingAction::Pause if !session.paused => {
                session.paused = true;
                self.set_fork(session, Step::Paused, cx);
            }
            RecordingAction::Resume if session.paused => {
                session.paused = false;
                match session.recorder.pause {
                    RecorderPause::Silence => self.set_fork(session, Step::Resumed, cx),
                    // The recorder is told first; packets go on once it has agreed.
                    RecorderPause::Inactive if session.stands() => self.tell(session, cx),
                    RecorderPause::Inactive => self.answer_waiting(session, &Ok(()), cx),
                }
            }
            RecordingAction::Start if session.paused => {
                let why = "the recording session is paused: resume it".to_owned();
                self.answer_waiting(session, &Err(ActionError::WrongState(why)), cx);
            }
            RecordingAction::Start if down => {
                let why = session.why.clone().unwrap_or_default();
                self.answer_waiting(session, &Err(ActionError::Unavailable(why)), cx);
            }
            RecordingAction::Start if !session.stands() => {}
            _ => self.answer_waiting(session, &Ok(()), cx),
        }
    }

    /// Those who wait for the session hear what came of it.
    pub(super) fn answer_waiting(
        &mut self,
        session: &mut RecordingSession,
        result: &Result<(), ActionError>,
        cx: &mut Context<'_>,
    ) {
        let (messages, waiting) = std::mem::take(&mut session.waiting)
            .into_iter()
            .partition(|one| one.message.is_some());
        session.waiting = messages;
        let waiting: Vec<Waiting> = waiting;
        for one in waiting {
            self.answered(session, one.act, result, cx);
        }
    }

    fn answered(
        &mut self,
        session: &RecordingSession,
        number: u64,
        result: &Result<(), ActionError>,
        _cx: &Context<'_>,
    ) {
        let Some(act) = self.acts.get_mut(&number) else {
            return;
        };
        act.open -= 1;
        match result {
            Ok(()) => act.sessions.push(session.shown()),
            Err(error) => {
                act.failed.get_or_insert_with(|| error.clone());
            }
        }
        if act.open == 0
            && let Some(act) = self.acts.remove(&number)
        {
            let _ = act.reply.send(match act.failed {
                Some(error) => Err(error),
                None => Ok(act.sessions),
            });
        }
    }

    /// The session is gone: nobody waits for it any longer.
    pub(super) fn release_waiting(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        let gone = Err(ActionError::Unavailable(
            "the recording session is over".to_owned(),
        ));
        for one in std::mem::take(&mut session.waiting) {
            self.answered(session, one.act, &gone, cx);
        }
    }

    /// Sends a request of the operator's inside a session.
    pub fn message(
        &mut self,
        call: u64,
        chosen: &Chosen,
        method: &Method,
        headers: &[(String, String)],
        body: &[u8],
        reply: Reply,
        cx: &mut Context<'_>,
    ) {
        let found = self.chosen(call, chosen);
        let standing = |key: &u64| self.sessions.get(key).is_some_and(RecordingSession::stands);
        let speaks = |key: u64| self.sessions.get(&key).and_then(|one| one.carrier);
        let found: Vec<u64> = found
            .into_iter()
            .filter(standing)
            .map(|key| speaks(key).unwrap_or(key))
            .collect();
        if found.is_empty() {
            let why = "the call has no such standing recording session".to_owned();
            let _ = reply.send(Err(ActionError::WrongState(why)));
            return;
        }
        let act = self.new_act(found.len(), reply);
        for key in found {
            self.with(key, cx, |client, session, cx| {
                match client.send_message(session, method.clone(), headers, body, cx) {
                    Some(tx) => session.waiting.push(Waiting {
                        act,
                        message: Some(tx),
                    }),
                    None => {
                        let why = "the request cannot be sent".to_owned();
                        client.answered(session, act, &Err(ActionError::Unavailable(why)), cx);
                    }
                }
            });
        }
    }

    pub(super) fn on_message_answered(
        &mut self,
        session: &mut RecordingSession,
        tx: ClientTx,
        status: u16,
        cx: &mut Context<'_>,
    ) {
        let found = session
            .waiting
            .iter()
            .position(|one| one.message == Some(tx));
        let Some(index) = found else { return };
        let one = session.waiting.remove(index);
        let result = match status {
            200..300 => Ok(()),
            _ => Err(ActionError::Unavailable(format!(
                "the recorder answered {status}"
            ))),
        };
        self.answered(session, one.act, &result, cx);
        if status == 481 {
            self.lost(session, "it knows the session no more", false, cx);
        }
    }
}
