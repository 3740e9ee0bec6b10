//! The record from which a restarted control goes on with a recording session.

use serde::{Deserialize, Serialize};
use trunkline_link::message::{Command, Side, SnapshotSession};
use trunkline_sinks::object;

use crate::b2bua::B2bua;
use crate::b2bua::persist::{SavedLeg, route_of};
use crate::call::media::Media;
use crate::call::negotiation::Negotiation;
use crate::call::recording::Recording;
use crate::call::{Call, Phase};
use crate::clock::Moment;
use crate::packing::{pack, unpack};
use crate::siprec::server::Session;
use crate::siprec::server::joined::Joined;
use crate::siprec::server::session::SavedSession;

/// Version of the record's layout; the high bits tell it from a call's and from a client's.
const VERSION: u8 = 0x81;

#[derive(Serialize, Deserialize)]
struct Saved {
    object: object::Call,
    route: String,
    leg: SavedLeg,
    session: SavedSession,
    media_timeout_ms: u32,
    recordings: Vec<Recording>,
    answered_mono_ns: u64,
    ending: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    joined: Vec<Joined>,
}

/// Whether a record is a recording session's.
pub(in crate::b2bua) fn is_record(record: &[u8]) -> bool {
    record.first() == Some(&VERSION)
}

impl B2bua {
    pub(in crate::b2bua) fn save_recording_session(&mut self, call: &Call) {
        let saved = saved_session(call);
        if let Some(key) = call.host {
            let saved = saved.and_then(|saved| serde_json::to_value(saved).ok());
            if let Some(mut host) = self.calls.remove(&key) {
                let mut joined = host.joined.iter_mut();
                if let Some(one) = joined.find(|one| one.key == call.key && one.present) {
                    one.saved = saved;
                }
                self.save(&host);
                self.calls.insert(key, host);
            }
            return;
        }
        let Some(record) = saved.and_then(|saved| pack(VERSION, &saved)) else {
            tracing::warn!(session = %call.object.id, "a recording session's record is too large: it would not survive a restart");
            return;
        };
        let session = call.key;
        self.command(Command::SessionRecord { session, record });
    }

    /// Makes a recording session of one that an earlier control left behind.
    pub(in crate::b2bua) fn restore_recording_session(
        &mut self,
        snapshot: SnapshotSession,
        now: &Moment,
    ) -> bool {
        let Some(mut saved) = unpack::<Saved>(VERSION, &snapshot.record) else {
            return false;
        };
        let Some(route) = route_of(&self.config, &saved.route) else {
            return false;
        };
        let Some(session) = Session::load(saved.session, &route.codecs) else {
            return false;
        };
        let key = snapshot.session;
        let mut media = Media::new(key, snapshot.interface, saved.media_timeout_ms);
        media.open = snapshot.media;
        let leg = saved.leg.restored(now);
        let nat = self.config.sip.nat;
        let mut updates = session.lines.leg_updates(key, leg.remote.ip(), nat);
        let mut guests = Vec::new();
        for one in &saved.joined {
            let guest = one.saved.clone();
            let guest = guest.and_then(|guest| serde_json::from_value::<Saved>(guest).ok());
            if let Some(guest) =
                guest.and_then(|guest| self.restored_guest(guest, one.key, key, now))
            {
                let remote = guest.leg(Side::Caller).remote.ip();
                let lines = guest.recording_session.iter().map(|session| &session.lines);
                updates.extend(lines.flat_map(|lines| lines.leg_updates(key, remote, nat)));
                guests.push(guest);
            }
        }
        // Who was not kept is not there any more, and nobody waits for it.
        for one in &mut saved.joined {
            if one.present && !guests.iter().any(|guest| guest.key == one.key) {
                one.leave(Some(now.utc));
                one.saved = None;
            }
        }
        for update in updates {
            // Told to the former control's dataplane already: only remembered here.
            let _ = media.leg_command(update);
        }
        if let Some(dialog) = &leg.dialog {
            self.dialogs.insert(dialog.id(), (key, Side::Caller));
        }
        let mut callee = leg.clone();
        (callee.dialog, callee.session, callee.over) = (None, None, true);
        let negotiation = Negotiation::new([0, 0]);
        let mut call = Box::new(Call {
            phase: Phase::Answered,
            recordings: saved.recordings,
            answered_mono_ns: saved.answered_mono_ns,
            announced: session.ended_at.is_some(),
            recording_session: Some(Box::new(session)),
            joined: saved.joined,
            ..Call::new(key, saved.object, route, [leg, callee], media, negotiation)
        });
        self.restore_recordings(&mut call, snapshot.recording, snapshot.phase, now);
        if saved.ending {
            self.resume_ending(&mut call, now);
        }
        self.settle(call, now);
        for guest in guests {
            self.settle(guest, now);
        }
        true
    }

    /// A session whose streams are in the recording of another.
    fn restored_guest(
        &mut self,
        saved: Saved,
        key: u64,
        host: u64,
        now: &Moment,
    ) -> Option<Box<Call>> {
        let route = route_of(&self.config, &saved.route)?;
        let session = Session::load(saved.session, &route.codecs)?;
        let leg = saved.leg.restored(now);
        if let Some(dialog) = &leg.dialog {
            self.dialogs.insert(dialog.id(), (key, Side::Caller));
        }
        let mut callee = leg.clone();
        (callee.dialog, callee.session, callee.over) = (None, None, true);
        Some(Box::new(Call {
            phase: Phase::Answered,
            recording_session: Some(Box::new(session)),
            host: Some(host),
            ..Call::new(
                key,
                saved.object,
                route,
                [leg, callee],
                Media::new(key, [0, 0], 0),
                Negotiation::new([0, 0]),
            )
        }))
    }
}

fn saved_session(call: &Call) -> Option<Saved> {
    Some(Saved {
        object: call.object.clone(),
        route: call.route.name.clone(),
        leg: SavedLeg::of(call.leg(Side::Caller))?,
        session: call.recording_session.as_ref()?.save()?,
        media_timeout_ms: call.media.media_timeout_ms,
        recordings: call.recordings.clone(),
        answered_mono_ns: call.answered_mono_ns,
        ending: call.phase == Phase::Ending,
        joined: call.joined.clone(),
    })
}
