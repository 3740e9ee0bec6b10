//! Recorders that open recording sessions themselves: who may, and of which call.

use std::sync::Arc;

use trunkline_config::Recorder;
use trunkline_sip::message::{Request, Response};
use trunkline_sip::transaction::{Path, ServerTx};

use super::B2bua;
use super::invite::Refused;
use super::srs::{self, ACCEPT, warning};
use crate::call::Phase;
use crate::clock::Moment;
use crate::siprec::client::Wanted;
use crate::siprec::server::session::asks_to_record;

/// The user by which a recorder asks for all its calls.
const ALL: &str = "all";
/// Seconds after which a recorder may ask again for a call without media.
const RETRY_AFTER_S: &str = "2";

impl B2bua {
    /// Whether an INVITE is for our recording client. Without a `[[recorder]]` it goes its way like any other.
    pub(super) fn is_asking(&self, request: &Request) -> bool {
        !self.config.recorders.is_empty() && asks_to_record(request)
    }

    /// The INVITE of a recorder that wants to record a call of ours.
    pub(super) fn on_asking_invite(
        &mut self,
        tx: ServerTx,
        request: Request,
        path: Path,
        now: &Moment,
    ) {
        match self.admit_asking(&request, path) {
            Ok((wanted, recorder)) => {
                self.respond(tx, Response::to(&request, 100), now);
                let (client, mut context) = self.recorders(now);
                let kept = request.clone();
                if !client.open_asked(wanted, &recorder, tx, request, path, &mut context) {
                    self.respond_plain(tx, &kept, 400, now);
                }
            }
            Err(refused) => {
                tracing::warn!(from = %path.source, status = refused.0, "a recorder may not open a session");
                self.refuse(tx, &request, refused, now);
            }
        }
    }

    fn admit_asking(
        &self,
        request: &Request,
        path: Path,
    ) -> Result<(Wanted, Arc<Recorder>), Refused> {
        let source = path.source.ip();
        let mut recorders = self.config.recorders.iter();
        let recorder = recorders
            .find(|one| one.may_ask(source))
            .ok_or_else(|| (403, vec![warning("this recorder may not ask for calls")]))?;
        srs::judge(request)?;
        if !request.body.is_empty() {
            let why = "a recorder's INVITE has no offer: it gets one (RFC 7866 section 6.2)";
            return Err((488, vec![warning(why), ("Accept", ACCEPT.to_owned())]));
        }
        if self.refuses_calls() {
            return Err((503, vec![("Retry-After", super::RETRY_AFTER_S.to_owned())]));
        }
        let refused = |(status, why): (u16, &str)| (status, vec![warning(why)]);
        let wanted = request.uri.user_decoded().unwrap_or_default();
        if wanted == ALL {
            self.siprec.may_carry(recorder).map_err(refused)?;
            let [_, interface] = self.interfaces(source, source);
            let interface = interface.unwrap_or_default();
            return Ok((Wanted::All { interface }, Arc::clone(recorder)));
        }
        let key = self
            .call_named(&wanted)
            .ok_or_else(|| (404, vec![warning("no such call")]))?;
        let ready = self.calls.get(&key).filter(|call| {
            let answered = matches!(call.phase, Phase::Answered);
            answered && !call.negotiation.is_pending()
        });
        let Some(call) = ready else {
            return Err((480, vec![("Retry-After", RETRY_AFTER_S.to_owned())]));
        };
        self.siprec.may_open(key, recorder).map_err(refused)?;
        let view = Box::new(self.view(call));
        if view.declined {
            let why = "a party does not want to be recorded";
            return Err((403, vec![warning(why)]));
        }
        Ok((Wanted::Call(view), Arc::clone(recorder)))
    }

    /// The call of this id, Session-ID, or Call-ID of the caller's leg.
    fn call_named(&self, name: &str) -> Option<u64> {
        if let Some(key) = self.ids.get(name) {
            return Some(*key);
        }
        let found = self.calls.values().find(|call| {
            let object = &call.object;
            let session = object.session_id.as_deref();
            call.is_shown()
                && (object.sip_call_id == name
                    || session.is_some_and(|one| one.eq_ignore_ascii_case(name)))
        });
        found.map(|call| call.key)
    }
}
