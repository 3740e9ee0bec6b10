//! Recording sessions that the recorder opens itself (RFC 7866 section 6.2): its INVITE has no offer, ours is
//! in the 2xx with all that is to be known of the call, and its answer comes in the ACK.
//!
//! ```text
//! INVITE ─ Asked ─ ports ─► 200 with offer and document ─ ACK with the answer ─► Arming ─► Standing
//! ```

use std::sync::Arc;

use trunkline_config::Recorder;
use trunkline_sdp::Description;
use trunkline_sip::dialog::Dialog;
use trunkline_sip::message::{Request, Response, Uri};
use trunkline_sip::transaction::{Path, ServerTx};
use trunkline_siprec::multipart;

use super::actions::SESSIONS_MAX;
use super::setup::address_uri;
use super::state::{Invited, Phase, RecordingSession, Server, Step};
use super::{CallView, Client, Context};
use crate::b2bua::headers;
use crate::call::Leg;

/// What a recorder asks for.
pub enum Wanted {
    /// One call.
    Call(Box<CallView>),
    /// All calls that are recorded to it, from now on, in one persistent session.
    All {
        /// Interface of the recorder's side.
        interface: u8,
    },
}

impl Client {
    /// Whether a recorder may open a session of this call now; why not, as a status and in words.
    ///
    /// # Errors
    /// It has one, or the call has too many.
    pub fn may_open(&self, call: u64, recorder: &Recorder) -> Result<(), (u16, &'static str)> {
        let sessions = self.of_call(call);
        let of = |key: &u64| self.sessions.get(key);
        let has = |one: &RecordingSession| one.recorder.name == recorder.name && !one.is_over();
        if sessions.iter().filter_map(of).any(has) {
            return Err((486, "the recorder has a session of this call"));
        }
        if sessions.len() >= SESSIONS_MAX {
            return Err((486, "the call has too many recording sessions"));
        }
        Ok(())
    }

    /// A recorder opens a session. False when its INVITE makes no dialog.
    pub fn open_asked(
        &mut self,
        wanted: Wanted,
        recorder: &Arc<Recorder>,
        tx: ServerTx,
        request: Request,
        path: Path,
        cx: &mut Context<'_>,
    ) -> bool {
        let tag = cx.endpoint.local_tag(tx).map(str::to_owned);
        let tag = tag.unwrap_or_else(|| cx.endpoint.new_tag());
        let contact = address_uri(path.transport, path.local);
        let dialog = contact
            .as_ref()
            .and_then(|contact| Dialog::uas(&request, &tag, contact).ok());
        let (Some(contact), Some(mut dialog)) = (contact, dialog) else {
            return false;
        };
        dialog.mark_contact("+sip.src");
        let server = asking_server(&request, path);
        let key = match wanted {
            Wanted::Call(view) => match self.begin_asked(*view, recorder, cx) {
                Some(key) => key,
                None => return false,
            },
            Wanted::All { interface } => self.new_carrier(interface, recorder, cx),
        };
        self.dialogs.insert(dialog.id(), key);
        self.with(key, cx, |client, session, cx| {
            session.phase = Phase::Asked;
            session.by_recorder = true;
            session.server = server;
            session.leg = Some(Leg {
                dialog: Some(dialog),
                ..Leg::new(
                    path.transport,
                    Some(path.flow),
                    path.local,
                    path.source,
                    contact,
                )
            });
            client.own_server(session, tx);
            session.invited = Some(Invited { tx, request });
            match session.is_carrier() {
                // It needs no ports of its own.
                true => client.answer_asking(session, cx),
                false => client.update(session, cx),
            }
            if !session.is_carrier() && session.lines.is_empty() {
                client.refuse_asking(session, 488, cx);
                session.phase = Phase::Over;
            }
        });
        true
    }

    /// The session of one call, which rides on no other.
    fn begin_asked(
        &mut self,
        view: CallView,
        recorder: &Arc<Recorder>,
        cx: &mut Context<'_>,
    ) -> Option<u64> {
        let call = view.key;
        self.follow(view, cx);
        let view = self.calls.get(&call)?.view.clone()?;
        let mut session = self.new_session(&view, recorder, cx);
        // What rests here is not told to who comes meanwhile.
        session.paused = view.rests || view.capture_rests;
        let key = session.key;
        let known = self.calls.get_mut(&call)?;
        known.begun.insert(recorder.name.clone());
        known.dismissed.remove(&recorder.name);
        known.sessions.push(key);
        self.sessions.insert(key, session);
        Some(key)
    }

    /// Whether a recorder may open a session for all its calls.
    ///
    /// # Errors
    /// It has one.
    pub fn may_carry(&self, recorder: &Recorder) -> Result<(), (u16, &'static str)> {
        match self.carriers.contains_key(&recorder.name) {
            true => Err((486, "the recorder has a persistent session")),
            false => Ok(()),
        }
    }

    /// Ports are there: the recorder's INVITE is answered with our offer.
    pub(super) fn answer_asking(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        if let Some(Invited { tx, request }) = session.invited.take() {
            self.offer_to(session, tx, &request, cx);
        }
    }

    /// The recorder's ACK, with the answer to our offer.
    pub(super) fn asking_acknowledged(
        &mut self,
        session: &mut RecordingSession,
        ack: &Request,
        cx: &mut Context<'_>,
    ) {
        let kind = ack.headers.get("Content-Type").unwrap_or_default();
        let bodies = multipart::read(&kind, &ack.body).unwrap_or_default();
        let usable = bodies.sdp.filter(|sdp| Description::parse(sdp).is_ok());
        let (Some(answer), Some(asked)) = (usable, &session.asked) else {
            return self.asked_in_vain(session, "its ACK has no usable answer", cx);
        };
        session.offered.clone_from(&asked.offered);
        session.told.clone_from(&asked.body);
        session.hear(&answer);
        session.phase = Phase::Arming;
        self.arm(session, Step::Armed, cx);
    }

    /// Nothing comes of a session that the recorder opened: no other server is asked for it.
    pub(super) fn asked_in_vain(
        &mut self,
        session: &mut RecordingSession,
        why: &str,
        cx: &mut Context<'_>,
    ) {
        session.why = Some(format!("{}: {why}", session.server_name()));
        if session.invited.is_some() {
            self.refuse_asking(session, 500, cx);
        } else {
            self.send_stray_bye(session, cx);
        }
        session.phase = Phase::Over;
    }

    /// The recorder's INVITE that waits is refused.
    pub(super) fn refuse_asking(
        &mut self,
        session: &mut RecordingSession,
        status: u16,
        cx: &mut Context<'_>,
    ) {
        let Some(Invited { tx, request }) = session.invited.take() else {
            return;
        };
        let Some(dialog) = session.dialog() else {
            return;
        };
        let mut response: Response = dialog.response(&request, status);
        dialog.sent_response(&request, status);
        response.headers.set("Server", headers::SERVER);
        response.set_content_length();
        let _ = cx.endpoint.respond(cx.now.instant, tx, response);
    }

    /// The recorder takes its INVITE back before it was answered.
    pub fn on_cancel(&mut self, tx: ServerTx, cx: &mut Context<'_>) {
        if let Some(key) = self.servers.get(&tx).copied() {
            self.with(key, cx, |client, session, cx| {
                if session.invited.is_some() {
                    client.refuse_asking(session, 487, cx);
                    session.phase = Phase::Over;
                }
            });
        }
    }
}

/// Who asks, as a server: by its user and where it is.
fn asking_server(request: &Request, path: Path) -> Option<Server> {
    let contact = request.headers.contact_uri()?;
    let user = contact.user_decoded();
    let uri = address_uri(path.transport, path.source)?;
    let uri: Uri = match &user {
        Some(user) => uri.with_user(Some(user)),
        None => uri,
    };
    Some(Server {
        uri,
        transport: path.transport,
        name: None,
        address: Some(path.source),
    })
}
