//! The dialog object. It holds no socket, timer or transaction: it builds the requests of its
//! side and judges those of the other.

use std::time::Duration;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::id::DialogId;
use crate::message::{CSEQ_MAX, Method, NameAddr, Request, Response, SessionId, Uri};

/// Which side of the dialog's first request we were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// We sent it, and own the Call-ID.
    #[serde(rename = "c")]
    Uac,
    /// We received it.
    #[serde(rename = "s")]
    Uas,
}

/// How far the dialog is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DialogState {
    #[serde(rename = "e")]
    Early,
    #[serde(rename = "c")]
    Confirmed,
    #[serde(rename = "t")]
    Terminated,
}

/// Why there is no dialog, or no request of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialogError {
    #[error("the message that makes the dialog has no usable {0}")]
    Missing(&'static str),
    #[error("the response makes no dialog")]
    NoDialog,
    #[error("the dialog has ended")]
    Terminated,
    #[error("an INVITE of this dialog is under way")]
    InvitePending,
    #[error("ACK and CANCEL are not built this way")]
    WrongMethod,
    #[error("the sequence numbers are used up")]
    Exhausted,
}

/// A request of the peer that the dialog doesn't admit, and how to answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// Seconds to put into Retry-After.
    pub retry_after_s: Option<u32>,
}

/// What a response means for the dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Continue,
    /// The peer knows the dialog no more (481), or did not answer at all (408): end it by BYE
    /// (RFC 3261 section 12.2.1.2).
    PeerLost,
    /// The dialog has ended.
    Ended,
}

/// One side's view of a dialog. `Serialize` gives a compact snapshot from which
/// `Deserialize` restores it; requests under way are not part of it, as their transactions
/// do not outlive the process either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialog {
    #[serde(rename = "i")]
    call_id: String,
    #[serde(rename = "lt")]
    local_tag: String,
    #[serde(rename = "rt", default, skip_serializing_if = "String::is_empty")]
    remote_tag: String,
    /// Our From (or To) without tag: display name and URI.
    #[serde(rename = "la")]
    local_address: String,
    #[serde(rename = "ra")]
    remote_address: String,
    #[serde(rename = "ls")]
    local_seq: u32,
    #[serde(rename = "rs", default, skip_serializing_if = "Option::is_none")]
    remote_seq: Option<u32>,
    /// Route elements as written, in the order of sending.
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    route_set: Vec<String>,
    #[serde(rename = "t")]
    remote_target: Uri,
    /// The value of our Contact.
    #[serde(rename = "c")]
    contact: String,
    #[serde(rename = "x", default, skip_serializing_if = "is_false")]
    secure: bool,
    #[serde(rename = "o")]
    role: Role,
    #[serde(rename = "s")]
    state: DialogState,
    /// CSeq of our INVITE that has no final response yet.
    #[serde(skip)]
    local_invite: Option<u32>,
    /// CSeq of the peer's INVITE that we haven't answered yet.
    #[serde(skip)]
    remote_invite: Option<u32>,
    #[serde(skip)]
    local_update: Option<u32>,
    #[serde(skip)]
    remote_update: Option<u32>,
    /// RSeq of the last reliable provisional that was in order.
    #[serde(rename = "q", default, skip_serializing_if = "Option::is_none")]
    pub(super) last_rseq: Option<u32>,
    /// What our messages say of the session's ends, where the first one said something.
    #[serde(rename = "y", default, skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<Box<SessionId>>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Dialog {
    /// The dialog that a response to our INVITE (or other dialog-forming request) makes:
    /// early with a 101-199 that has a To tag, confirmed with a 2xx (RFC 3261 section
    /// 12.1.2). Each To tag is a dialog of its own.
    ///
    /// # Errors
    /// A failure or a provisional without tag makes none; a 2xx needs a Contact.
    pub fn uac(request: &Request, response: &Response) -> Result<Dialog, DialogError> {
        let success = response.is_success();
        if !success && !(101..=199).contains(&response.status) {
            return Err(DialogError::NoDialog);
        }
        let missing = DialogError::Missing;
        let sent = &request.headers;
        let local = sent.from_address().map_err(|_| missing("From"))?;
        let remote = response.headers.to_address().map_err(|_| missing("To"))?;
        let local_tag = local.tag().ok_or(missing("From tag"))?.to_owned();
        let remote_tag = match remote.tag() {
            Some(tag) => tag.to_owned(),
            None if success => String::new(),
            None => return Err(DialogError::NoDialog),
        };
        let contact = response.headers.contact_uri();
        let remote_target = match contact {
            Some(uri) => uri.without_headers(),
            None if success => return Err(missing("Contact")),
            None => request.uri.clone(),
        };
        let cseq = sent.cseq().map_err(|_| missing("CSeq"))?;
        let invite = cseq.method == Method::Invite && !success;
        let session = SessionId::of(sent).map(|ours| SessionId {
            remote: SessionId::sender(&response.headers).unwrap_or(ours.remote),
            local: ours.local,
        });
        Ok(Dialog {
            call_id: sent.call_id().map_err(|_| missing("Call-ID"))?,
            local_tag,
            remote_tag,
            local_address: local.with_tag(None).to_string(),
            remote_address: remote.with_tag(None).to_string(),
            local_seq: cseq.number,
            remote_seq: None,
            route_set: reversed_record_route(response),
            remote_target,
            contact: sent.get("Contact").unwrap_or_default().into_owned(),
            secure: request.uri.scheme() == crate::message::Scheme::Sips,
            role: Role::Uac,
            state: if success {
                DialogState::Confirmed
            } else {
                DialogState::Early
            },
            local_invite: invite.then_some(cseq.number),
            remote_invite: None,
            local_update: None,
            remote_update: None,
            last_rseq: None,
            session: session.map(Box::new),
        })
    }

    /// The dialog that we make by answering a request (RFC 3261 section 12.1.1): early until
    /// [`Dialog::sent_response`] tells of a 2xx. `local_tag` is the tag of our responses,
    /// `contact` our Contact.
    ///
    /// # Errors
    /// The request has no usable Contact, or lacks another header it needs.
    pub fn uas(request: &Request, local_tag: &str, contact: &Uri) -> Result<Dialog, DialogError> {
        let missing = DialogError::Missing;
        let headers = &request.headers;
        let remote = headers.from_address().map_err(|_| missing("From"))?;
        let local = headers.to_address().map_err(|_| missing("To"))?;
        let cseq = headers.cseq().map_err(|_| missing("CSeq"))?;
        let target = headers.contact_uri().ok_or(missing("Contact"))?;
        Ok(Dialog {
            call_id: headers.call_id().map_err(|_| missing("Call-ID"))?,
            local_tag: local_tag.to_owned(),
            remote_tag: remote.tag().unwrap_or("").to_owned(),
            local_address: local.with_tag(None).to_string(),
            remote_address: remote.with_tag(None).to_string(),
            local_seq: 0,
            remote_seq: Some(cseq.number),
            route_set: headers.list("Record-Route"),
            remote_target: target.without_headers(),
            contact: format!("<{contact}>"),
            secure: request.uri.scheme() == crate::message::Scheme::Sips,
            role: Role::Uas,
            state: DialogState::Early,
            local_invite: None,
            remote_invite: (cseq.method == Method::Invite).then_some(cseq.number),
            local_update: None,
            remote_update: None,
            last_rseq: None,
            session: SessionId::sender(headers).map(|remote| {
                let local = SessionId::fresh();
                Box::new(SessionId { local, remote })
            }),
        })
    }

    pub fn id(&self) -> DialogId {
        DialogId {
            call_id: self.call_id.clone(),
            local_tag: self.local_tag.clone(),
            remote_tag: self.remote_tag.clone(),
        }
    }

    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    pub fn remote_tag(&self) -> &str {
        &self.remote_tag
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn state(&self) -> DialogState {
        self.state
    }

    /// Whether the dialog was made through a sips URI.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Our address: display name and URI, without tag.
    pub fn local_address(&self) -> &str {
        &self.local_address
    }

    /// The peer's address: display name and URI, without tag.
    pub fn remote_address(&self) -> &str {
        &self.remote_address
    }

    /// The peer's Contact, as last refreshed.
    pub fn remote_target(&self) -> &Uri {
        &self.remote_target
    }

    /// The CSeq number of our last request.
    pub fn local_seq(&self) -> u32 {
        self.local_seq
    }

    /// The value of our Contact header.
    pub fn contact(&self) -> &str {
        &self.contact
    }

    /// Our Contact has this parameter too from now on (a feature tag, RFC 3840).
    pub fn mark_contact(&mut self, parameter: &str) {
        let parameters = self.contact.rsplit('>').next().unwrap_or_default();
        if !parameters.split(';').any(|known| known == parameter) {
            self.contact.push(';');
            self.contact.push_str(parameter);
        }
    }

    /// Another Contact of ours from now on.
    pub fn set_contact(&mut self, contact: &Uri) {
        self.contact = format!("<{contact}>");
    }

    /// Whether an INVITE of either side is under way, so that ours has to wait.
    pub fn invite_pending(&self) -> bool {
        self.local_invite.is_some() || self.remote_invite.is_some()
    }

    /// Where the next request goes: the first route, else the peer's Contact.
    pub fn next_hop(&self) -> Uri {
        let first = self.route_set.first().and_then(|text| route_uri(text));
        first.unwrap_or_else(|| self.remote_target.clone())
    }

    /// Builds the next request of our side: Request-URI and Route by loose or strict routing
    /// (RFC 3261 section 12.2.1.1), the next CSeq, both addresses, Contact.
    ///
    /// # Errors
    /// The dialog has ended; an INVITE while one of either side is under way; ACK and CANCEL.
    pub fn request(&mut self, method: Method) -> Result<Request, DialogError> {
        if self.state == DialogState::Terminated {
            return Err(DialogError::Terminated);
        }
        if matches!(method, Method::Ack | Method::Cancel) {
            return Err(DialogError::WrongMethod);
        }
        if method == Method::Invite && self.invite_pending() {
            return Err(DialogError::InvitePending);
        }
        if self.local_seq >= CSEQ_MAX {
            return Err(DialogError::Exhausted);
        }
        self.local_seq += 1;
        match method {
            Method::Invite => self.local_invite = Some(self.local_seq),
            Method::Update => self.local_update = Some(self.local_seq),
            _ => {}
        }
        let mut request = self.build(method, self.local_seq);
        if request.method.refreshes_target() && !self.contact.is_empty() {
            request.headers.append("Contact", &self.contact);
        }
        Ok(request)
    }

    /// Leaves so many numbers out: requests of a former life of the dialog may have used them.
    pub fn skip_requests(&mut self, count: u32) {
        self.local_seq = self.local_seq.saturating_add(count).min(CSEQ_MAX);
    }

    /// The ACK of the 2xx to our INVITE with this CSeq number. Works in every state, so that a
    /// 2xx that lost its race is acknowledged too.
    pub fn ack(&self, cseq: u32) -> Request {
        self.build(Method::Ack, cseq)
    }

    fn build(&self, method: Method, cseq: u32) -> Request {
        let target = self.remote_target.clone();
        let first = self.route_set.first().and_then(|text| route_uri(text));
        let (uri, routes) = match first {
            // A strict router is named in the Request-URI; the target goes to the end.
            Some(first) if !first.has_param("lr") => {
                let mut routes = self.route_set[1..].to_vec();
                routes.push(format!("<{target}>"));
                (first.without_headers(), routes)
            }
            _ => (target, self.route_set.clone()),
        };
        let mut request = Request::new(method.clone(), uri);
        request.headers.append("Max-Forwards", "70");
        for route in routes {
            request.headers.append("Route", route);
        }
        request
            .headers
            .append("From", tagged(&self.local_address, &self.local_tag));
        request
            .headers
            .append("To", tagged(&self.remote_address, &self.remote_tag));
        request.headers.append("Call-ID", &self.call_id);
        request.headers.append("CSeq", format!("{cseq} {method}"));
        if let Some(session) = &self.session {
            request.headers.append("Session-ID", session.to_string());
        }
        request
    }

    /// Judges a request of the peer that names this dialog: order of CSeq, glare of INVITEs
    /// and UPDATEs, end of the dialog. `Ok` means: handle it, answer it, and tell
    /// [`Dialog::sent_response`]. An ACK is always `Ok`.
    ///
    /// # Errors
    /// How to refuse it: 481, 500 (CSeq too low; or with Retry-After when our answer to an
    /// earlier INVITE or offer is due), 491 (ours is under way).
    pub fn receive(&mut self, request: &Request) -> Result<(), Refusal> {
        if request.method == Method::Ack {
            return Ok(());
        }
        let refuse = |status| {
            Err(Refusal {
                status,
                retry_after_s: None,
            })
        };
        if self.state == DialogState::Terminated {
            return refuse(481);
        }
        let Ok(cseq) = request.headers.cseq() else {
            return refuse(400);
        };
        if self.remote_seq.is_some_and(|last| cseq.number < last) {
            return refuse(500);
        }
        self.remote_seq = Some(cseq.number);
        self.hear_session(&request.headers);
        let offer = !request.body.is_empty();
        match request.method {
            Method::Invite if self.local_invite.is_some() => refuse(491),
            Method::Invite if self.remote_invite.is_some() => retry_later(),
            Method::Invite => {
                self.remote_invite = Some(cseq.number);
                Ok(())
            }
            // RFC 3311 section 5.2: offers in UPDATE.
            Method::Update if offer && self.local_update.is_some() => refuse(491),
            Method::Update if offer && self.remote_update.is_some() => retry_later(),
            Method::Update if offer && self.state == DialogState::Confirmed => {
                if self.local_invite.is_some() {
                    return refuse(491);
                }
                if self.remote_invite.is_some() {
                    return retry_later();
                }
                self.remote_update = Some(cseq.number);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A response to a request of the peer: To tag, Contact where it belongs, Record-Route
    /// for the request that makes the dialog.
    pub fn response(&self, request: &Request, status: u16) -> Response {
        let mut response = Response::to(request, status);
        if status > 100 {
            response.set_to_tag(&self.local_tag);
        }
        if let Some(session) = &self.session {
            response.headers.set("Session-ID", session.to_string());
        } else {
            // The user wants none here, though the request had one.
            response.headers.remove("Session-ID");
        }
        let refreshes = request.method.refreshes_target();
        if refreshes && (101..300).contains(&status) {
            response.headers.append("Contact", &self.contact);
            if request.headers.to_tag().is_none() {
                response.headers.copy(&request.headers, "Record-Route");
            }
        }
        response
    }

    /// Tells the dialog how a request of the peer was answered: a 2xx confirms an early
    /// dialog and refreshes the target, a final failure ends an early one, a BYE ends it.
    pub fn sent_response(&mut self, request: &Request, status: u16) {
        if status < 200 {
            return;
        }
        let success = status < 300;
        let number = request.headers.cseq().ok().map(|cseq| cseq.number);
        match request.method {
            Method::Invite => {
                let initial = self.role == Role::Uas && self.state == DialogState::Early;
                if self.remote_invite == number {
                    self.remote_invite = None;
                }
                if initial && request.headers.to_tag().is_none() {
                    self.state = if success {
                        DialogState::Confirmed
                    } else {
                        DialogState::Terminated
                    };
                }
            }
            Method::Update if self.remote_update == number => self.remote_update = None,
            Method::Bye => self.state = DialogState::Terminated,
            _ => {}
        }
        if success && request.method.refreshes_target() {
            self.refresh_target(request.headers.contact_uri());
        }
    }

    /// Tells the dialog of a response to a request of ours.
    pub fn handle_response(&mut self, response: &Response) -> Effect {
        let Ok(cseq) = response.headers.cseq() else {
            return Effect::Continue;
        };
        let success = response.is_success();
        self.hear_session(&response.headers);
        if response.is_final() {
            self.request_ended(&cseq.method, cseq.number);
        }
        if cseq.method == Method::Invite && self.state == DialogState::Early {
            return self.handle_early(response);
        }
        if success && cseq.method.refreshes_target() {
            self.refresh_target(response.headers.contact_uri());
        }
        match (&cseq.method, response.status) {
            (Method::Bye, 200..) => {
                self.state = DialogState::Terminated;
                Effect::Ended
            }
            // A 481 or 408 of these ends but their own usage (RFC 5057).
            (Method::Notify | Method::Subscribe | Method::Refer | Method::Prack, _) => {
                Effect::Continue
            }
            (_, 481 | 408) => Effect::PeerLost,
            _ => Effect::Continue,
        }
    }

    fn handle_early(&mut self, response: &Response) -> Effect {
        match response.status {
            ..=199 => {
                self.refresh_target(response.headers.contact_uri());
                Effect::Continue
            }
            200..=299 => {
                self.state = DialogState::Confirmed;
                // The route set is fixed by the 2xx (RFC 3261 section 13.2.2.4).
                self.route_set = reversed_record_route(response);
                self.refresh_target(response.headers.contact_uri());
                Effect::Continue
            }
            _ => {
                self.state = DialogState::Terminated;
                Effect::Ended
            }
        }
    }

    /// A request of ours ended without an answer (timeout, transport): it is under way no
    /// more.
    pub fn request_ended(&mut self, method: &Method, cseq: u32) {
        match method {
            Method::Invite if self.local_invite == Some(cseq) => self.local_invite = None,
            Method::Update if self.local_update == Some(cseq) => self.local_update = None,
            _ => {}
        }
    }

    /// Ends the dialog on our side, as after sending BYE.
    pub fn terminate(&mut self) {
        self.state = DialogState::Terminated;
    }

    /// How long to wait before an INVITE is tried again after 491: 2.1 to 4 s for the owner
    /// of the Call-ID, 0 to 2 s for the other, in steps of 10 ms (RFC 3261 section 14.1).
    pub fn glare_delay(&self, random: &mut impl Rng) -> Duration {
        let steps = match self.role {
            Role::Uac => random.random_range(210..=400),
            Role::Uas => random.random_range(0..=200),
        };
        Duration::from_millis(steps * 10)
    }

    fn refresh_target(&mut self, contact: Option<Uri>) {
        if let Some(uri) = contact {
            self.remote_target = uri.without_headers();
        }
    }
}

/// 500 with a Retry-After between 0 and 10 seconds (RFC 3261 section 14.2).
fn retry_later() -> Result<(), Refusal> {
    let seconds = rand::rng().random_range(0..=10);
    Err(Refusal {
        status: 500,
        retry_after_s: Some(seconds),
    })
}

fn reversed_record_route(response: &Response) -> Vec<String> {
    let mut routes = response.headers.list("Record-Route");
    routes.reverse();
    routes
}

fn route_uri(text: &str) -> Option<Uri> {
    NameAddr::parse(text, "Route")
        .ok()
        .map(|address| address.uri)
}

fn tagged(address: &str, tag: &str) -> String {
    if tag.is_empty() {
        address.to_owned()
    } else {
        format!("{address};tag={tag}")
    }
}
