//! What the API asks for.

use std::collections::BTreeSet;

use trunkline_link::message::RecordingPhase;
use trunkline_sinks::object::{self, EndedBy};

use super::B2bua;
use crate::api::handle::{ActionError, Health, RecordingAction, Request};
use crate::call::recording::Phase as Capture;
use crate::call::{ActionReply, Call, Phase};
use crate::clock::Moment;

impl B2bua {
    /// Works off a request of the API. Whoever no longer waits for the reply gets none.
    pub fn on_api_request(&mut self, request: Request, now: &Moment) {
        match request {
            Request::Calls { reply } => {
                let live = self
                    .calls
                    .values()
                    .filter(|call| !call.announced && call.is_shown());
                let _ = reply.send(live.map(|call| call.object.clone()).collect());
            }
            Request::Call { id, reply } => {
                let call = self.ids.get(&id).and_then(|key| self.calls.get(key));
                let _ = reply.send(call.map(|call| call.object.clone()));
            }
            Request::Recordings { reply } => {
                let _ = reply.send(self.recordings(now));
            }
            Request::Hangup { id, reply } => {
                let mut result = Err(ActionError::NotFound);
                if let Some(key) = self.ids.get(&id).copied() {
                    self.with_call(key, now, |b2bua, call| {
                        b2bua.hang_up(call, now);
                        result = Ok(call.object.clone());
                    });
                }
                let _ = reply.send(result);
            }
            Request::RecordingAction {
                call,
                action,
                reply,
            } => {
                let key = self.ids.get(&call).copied();
                let Some(key) = key.filter(|key| self.calls.contains_key(key)) else {
                    let _ = reply.send(Err(ActionError::NotFound));
                    return;
                };
                self.with_call(key, now, |b2bua, call| {
                    b2bua.act_on_recording(call, action, reply, now);
                });
            }
            Request::Transfer { call, order, reply } => {
                let mut result = Err(ActionError::NotFound);
                if let Some(key) = self.ids.get(&call).copied() {
                    self.with_call(key, now, |b2bua, call| {
                        result = b2bua.transfer_ordered(call, &order, now);
                    });
                }
                let _ = reply.send(result);
            }
            Request::RecorderOrder {
                call,
                chosen,
                order,
                reply,
            } => self.recorder_order(&call, &chosen, order, reply, now),
            Request::Siprec { reply } => {
                let _ = reply.send(self.siprec_sessions());
            }
            Request::SiprecSession { id, reply } => {
                let _ = reply.send(self.siprec_session(&id));
            }
            Request::Health { reply } => {
                let _ = reply.send(self.health());
            }
        }
    }

    /// How the appliance is.
    pub fn health(&self) -> Health {
        Health {
            draining: self.draining,
            dataplane_up: self.dataplane_up,
            capture_failing: self.capture_failing(),
            at_capacity: self.calls_active() >= self.calls_max as usize,
        }
    }

    /// Numbers of the recordings and ids of the calls that are not over.
    pub fn live(&self) -> (BTreeSet<u64>, BTreeSet<String>) {
        let open = self.calls.values().flat_map(|call| &call.recordings);
        let recordings = open
            .filter(|one| one.phase != Capture::Done)
            .map(|one| one.number)
            .collect();
        (recordings, self.ids.keys().cloned().collect())
    }

    fn recordings(&self, now: &Moment) -> Vec<object::Recording> {
        let open = self.calls.values().flat_map(|call| &call.recordings);
        open.filter(|one| one.phase != Capture::Done)
            .map(|one| {
                let mut one = one.clone();
                one.refresh(now.utc);
                one.object
            })
            .collect()
    }

    fn hang_up(&mut self, call: &mut Call, now: &Moment) {
        match call.phase {
            Phase::Answered => {
                let reason = ("SIP", 480, "ended by the operator");
                self.end_call(call, EndedBy::Us, Some(reason), now);
            }
            _ => self.fail_call(call, 480, "ended by the operator", now),
        }
    }

    fn act_on_recording(
        &mut self,
        call: &mut Call,
        action: RecordingAction,
        reply: ActionReply,
        now: &Moment,
    ) {
        let refuse = |reply: ActionReply, why: &str| {
            let _ = reply.send(Err(ActionError::WrongState(why.to_owned())));
        };
        if call.phase != Phase::Answered {
            return refuse(reply, "the call is not answered, or is ending");
        }
        let live = call.live_recording().map(|recording| {
            recording.refresh(now.utc);
            (recording.number, recording.phase, recording.object.clone())
        });
        let Some((number, phase, object)) = live else {
            return match action {
                RecordingAction::Start if !self.dataplane_up => {
                    let why = "the dataplane is down".to_owned();
                    let _ = reply.send(Err(ActionError::Unavailable(why)));
                }
                RecordingAction::Start => {
                    self.start_recording(call, Some(reply), now);
                }
                // Repeating a stop is fine.
                RecordingAction::Stop => match call.recordings.last() {
                    Some(last) => {
                        let _ = reply.send(Ok(last.object.clone()));
                    }
                    None => refuse(reply, "the call has no recording"),
                },
                _ => refuse(reply, "the call has no running recording"),
            };
        };
        let holds = |reply: ActionReply| {
            let _ = reply.send(Ok(object.clone()));
        };
        match (action, phase) {
            (RecordingAction::Start, Capture::Paused) => {
                refuse(reply, "the recording is paused: resume it");
            }
            (RecordingAction::Keep, _) => {
                self.keep_recording(call, number);
                let kept = call.recording(number).map(|one| one.object.clone());
                let _ = reply.send(Ok(kept.unwrap_or(object)));
            }
            (RecordingAction::Start, _)
            | (RecordingAction::Pause, Capture::Paused)
            | (RecordingAction::Resume, Capture::Running) => holds(reply),
            (RecordingAction::Pause, _) => {
                self.change_recording(call, number, RecordingPhase::Paused, Some(reply), now);
            }
            (RecordingAction::Resume, _) => {
                self.change_recording(call, number, RecordingPhase::Running, Some(reply), now);
            }
            (RecordingAction::Stop, _) => {
                self.change_recording(call, number, RecordingPhase::Stopped, Some(reply), now);
            }
        }
    }
}
