//! What parties wish of recording (`a=recordpref`, RFC 7866), and what becomes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use trunkline_config::{Record, RecordPref};
use trunkline_link::message::{FactKind, RecordingPhase, Side};
use trunkline_sdp::RecordPreference as Wish;
use trunkline_sinks::object::Preference;
use trunkline_sn3::facts::CallChange;

use super::super::{B2bua, CatalogWrite};
use super::role;
use crate::api::handle::RecordingAction;
use crate::call::recording::Phase as Capture;
use crate::call::{Call, Phase};
use crate::clock::Moment;
use crate::siprec::client::Chosen;

/// What the parties of a call wish together, where that counts. Before the answer it is what they have said
/// so far.
fn wish(call: &Call) -> Wish {
    if !call.route.honours_wishes() {
        return Wish::NoPreference;
    }
    let [caller, callee] = wishes(call);
    caller.with(callee)
}

fn wishes(call: &Call) -> [Wish; 2] {
    Side::BOTH.map(|side| call.negotiation.record_preference_of(side))
}

/// Whether no recording is to begin because of a party's wish.
pub(in crate::b2bua) fn declines(call: &Call) -> bool {
    match call.phase {
        Phase::Answered | Phase::Ending => call.awareness.done == Some(Wish::Off),
        _ => wish(call) == Wish::Off,
    }
}

/// Whether recording rests because of a party's wish.
pub(in crate::b2bua) fn rests(call: &Call) -> bool {
    call.awareness.done == Some(Wish::Pause)
}

impl B2bua {
    /// The recording that the route wants begins, unless a party wishes that it does not.
    pub(in crate::b2bua) fn start_by_route(&mut self, call: &mut Call, now: &Moment) {
        if !call.route.record.starts_itself() || declines(call) {
            return;
        }
        self.start_recording(call, None, now);
        if wish(call) == Wish::Pause {
            self.change_by_wish(call, RecordingPhase::Paused, Wish::Pause, now);
        }
    }

    /// What the parties wish is done, once, when it changes.
    pub(super) fn honour(&mut self, call: &mut Call, now: &Moment) {
        if call.phase != Phase::Answered || call.route.recordpref == RecordPref::Ignore {
            return;
        }
        let said = wishes(call);
        if said == call.awareness.wishes {
            return;
        }
        let before = call.awareness.wish();
        let known = std::mem::replace(&mut call.awareness.wishes, said);
        let honoured = call.route.honours_wishes();
        for side in Side::BOTH {
            let value = said[side as usize];
            if value != known[side as usize] {
                self.note_wish(call, side, value, honoured, now);
            }
        }
        let wish = call.awareness.wish();
        if honoured && wish != before {
            self.carry_out_wish(call, wish, now);
        }
        self.save(call);
    }

    fn note_wish(&mut self, call: &mut Call, side: Side, wish: Wish, honoured: bool, now: &Moment) {
        let preference = Preference {
            side: role(side),
            value: wish.name().to_owned(),
            at: now.utc,
            honoured,
        };
        let name = format!("recordpref.{}", role(side));
        let attributes = BTreeMap::from([(name, preference.value.clone())]);
        call.object.attributes.extend(attributes.clone());
        self.writes.push(CatalogWrite::Call(call.object.clone()));
        let change = CallChange {
            reason: "preference".to_owned(),
            attributes: attributes.clone(),
            preference: serde_json::to_value(&preference).ok(),
            ..CallChange::default()
        };
        let Some(recording) = call.live_recording() else {
            return;
        };
        recording.object.attributes.extend(attributes);
        recording.receipt_mut().preferred(preference);
        self.writes.push(CatalogWrite::Recording(recording.clone()));
        self.fact_to_live(call, FactKind::CallChange, &change);
    }

    fn carry_out_wish(&mut self, call: &mut Call, wish: Wish, now: &Moment) {
        match wish {
            Wish::NoPreference => {}
            Wish::Off => {
                self.change_by_wish(call, RecordingPhase::Stopped, wish, now);
                self.ask_recorders(call, RecordingAction::Stop, now);
                call.awareness.done = Some(wish);
            }
            Wish::Pause if call.awareness.done == Some(Wish::Off) => {}
            Wish::Pause => {
                self.change_by_wish(call, RecordingPhase::Paused, wish, now);
                self.ask_recorders(call, RecordingAction::Pause, now);
                call.awareness.done = Some(wish);
            }
            Wish::On => self.record_by_wish(call, now),
        }
    }

    /// The recording here rests, goes on or ends because a party wishes so.
    fn change_by_wish(&mut self, call: &mut Call, phase: RecordingPhase, wish: Wish, now: &Moment) {
        let said = wishes(call);
        let by = Side::BOTH
            .into_iter()
            .find(|side| said[*side as usize] == wish);
        let Some(recording) = call.live_recording() else {
            return;
        };
        if phase == RecordingPhase::Paused && recording.phase == Capture::Paused {
            return;
        }
        recording.wished_by = by;
        let number = recording.number;
        self.change_recording(call, number, phase, None, now);
    }

    /// A party wishes to be recorded: what a wish had paused or ended goes on, and what the route would
    /// record when asked begins.
    fn record_by_wish(&mut self, call: &mut Call, now: &Moment) {
        let done = call.awareness.done.take();
        let live = call
            .live_recording()
            .map(|one| (one.number, one.phase == Capture::Paused));
        match live {
            Some((_, true)) if done == Some(Wish::Pause) => {
                self.change_by_wish(call, RecordingPhase::Running, Wish::On, now);
            }
            None if call.route.record != Record::No => self.start_recording(call, None, now),
            _ => {}
        }
        if let Some(number) = call.live_recording().map(|one| one.number) {
            self.keep_recording(call, number);
        }
        match done {
            Some(Wish::Pause) => self.ask_recorders(call, RecordingAction::Resume, now),
            Some(Wish::Off) => self.ask_recorders(call, RecordingAction::Start, now),
            _ => {}
        }
    }

    /// The same of the call's recording sessions.
    fn ask_recorders(&mut self, call: &mut Call, action: RecordingAction, now: &Moment) {
        let recorders = Arc::clone(&call.route.recorders);
        let starts = action == RecordingAction::Start;
        if !self.siprec.knows_call(call.key) && !starts {
            return;
        }
        let view = self.view(call);
        let (key, (client, mut context)) = (call.key, self.recorders(now));
        if starts {
            client.follow(view, &mut context);
            for recorder in &recorders.list {
                let chosen = Chosen::Named(recorder.name.clone());
                let (reply, _) = oneshot::channel();
                let recorder = Some(Arc::clone(recorder));
                client.act(key, action, &chosen, recorder, reply, &mut context);
            }
            return;
        }
        let (reply, _) = oneshot::channel();
        client.act(key, action, &Chosen::All, None, reply, &mut context);
    }
}
