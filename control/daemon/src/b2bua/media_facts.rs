//! What the API and the running recording are told of a call's media.

use trunkline_link::message::{Command, FactKind, Side};
use trunkline_sn3::facts::CallChange;

use super::B2bua;
use crate::call::Call;

impl B2bua {
    /// What the API shows of the legs' codecs.
    pub(super) fn note_codecs(&self, call: &mut Call) {
        for side in Side::BOTH {
            let codec = call.negotiation.agreed_codec(side);
            call.object_leg(side).codec = codec;
        }
    }

    /// The legs' payload types as a fact of the running recording.
    pub(super) fn media_fact(&mut self, call: &mut Call) {
        let change = CallChange {
            reason: "media".to_owned(),
            legs: call.leg_facts(),
            ..CallChange::default()
        };
        self.fact_to_live(call, FactKind::CallChange, &change);
    }

    /// Appends a fact to the recording that captures, if there is one.
    pub(super) fn fact_to_live<F: serde::Serialize>(
        &mut self,
        call: &mut Call,
        kind: FactKind,
        fact: &F,
    ) {
        let live = match call.host {
            Some(host) => self.calls.get_mut(&host).and_then(|host| {
                let session = host.key;
                Some((session, host.live_recording()?.number))
            }),
            None => call
                .live_recording()
                .map(|one| one.number)
                .map(|one| (call.key, one)),
        };
        let (Some((session, recording)), Ok(fact)) = (live, serde_json::to_vec(fact)) else {
            return;
        };
        self.command(Command::RecordingFact {
            session,
            recording,
            kind,
            fact,
        });
    }
}
