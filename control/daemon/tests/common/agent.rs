//! A user agent that does what the test says.

use std::net::SocketAddr;
use std::time::Instant;

use trunkline_sip::dialog::{Dialog, DialogState};
use trunkline_sip::message::{Method, Request, Response, Uri};
use trunkline_sip::transaction::{
    self, ClientTx, Endpoint, Event, FlowId, Path, ServerTx, Target, Transport,
};

/// A request of the agent with what came back.
struct Sent {
    client: ClientTx,
    request: Request,
    responses: Vec<Response>,
    acked: bool,
}

/// An INVITE that waits for an answer.
pub struct Received {
    pub tx: ServerTx,
    pub request: Request,
}

pub struct Agent {
    pub endpoint: Endpoint,
    pub address: SocketAddr,
    pub call_id: String,
    pub acks: usize,
    pub byes: usize,
    pub cancels: usize,
    pub bye_status: Option<u16>,
    pub auto_ack: bool,
    pub ignores_cancel: bool,
    /// Nothing that comes in is heard.
    pub deaf: bool,
    pub last_ack_body: String,
    pub last_bye_reason: String,
    pub last_cancel_reason: String,
    /// It acknowledges reliable provisional responses by itself.
    pub auto_prack: bool,
    /// It answers UPDATE with a session of so many seconds that the sender refreshes.
    pub refreshes_for: Option<u32>,
    /// What it answers to INFO.
    pub info_status: u16,
    /// Its UUID in Session-ID when it answers.
    pub uuid: Option<&'static str>,
    /// Other requests that came in.
    pub requests: Vec<Request>,
    name: &'static str,
    tag: String,
    pub dialog: Option<Dialog>,
    sent: Vec<Sent>,
    invites: Vec<Received>,
    bye: Option<ClientTx>,
    known: Vec<(ServerTx, Request)>,
}

impl Agent {
    pub fn new(address: &str, name: &'static str, seed: u64) -> Self {
        let settings = transaction::Config {
            seed: Some(seed),
            ..transaction::Config::default()
        };
        let mut endpoint = Endpoint::new(settings);
        Self {
            tag: endpoint.new_tag(),
            call_id: endpoint.new_call_id("test"),
            endpoint,
            address: address.parse().unwrap(),
            acks: 0,
            byes: 0,
            cancels: 0,
            bye_status: None,
            auto_ack: false,
            ignores_cancel: false,
            deaf: false,
            last_ack_body: String::new(),
            last_bye_reason: String::new(),
            last_cancel_reason: String::new(),
            requests: Vec::new(),
            auto_prack: false,
            refreshes_for: None,
            info_status: 200,
            uuid: None,
            name,
            dialog: None,
            sent: Vec::new(),
            invites: Vec::new(),
            bye: None,
            known: Vec::new(),
        }
    }

    fn contact(&self) -> Uri {
        format!("sip:{}@{}", self.name, self.address)
            .parse()
            .unwrap()
    }

    fn target(&self, remote: SocketAddr) -> Target {
        Target::new(Transport::Udp, Some(FlowId(1)), self.address, remote)
    }

    pub fn invite(
        &mut self,
        uri: &str,
        to: SocketAddr,
        sdp: Option<&str>,
        headers: &[(&str, &str)],
        now: Instant,
    ) -> usize {
        let call_id = match self.sent.len() {
            0 => self.call_id.clone(),
            more => format!("{more}-{}", self.call_id),
        };
        let mut request = Request::new(Method::Invite, uri.parse().unwrap())
            .with("Max-Forwards", "70")
            .with(
                "From",
                format!(
                    "\"A\" <sip:{}@{}>;tag={}",
                    self.name, self.address, self.tag
                ),
            )
            .with("To", format!("<{uri}>"))
            .with("Call-ID", call_id)
            .with("CSeq", "1 INVITE")
            .with("Contact", format!("<{}>", self.contact()));
        match sdp {
            Some(sdp) => request.set_body("application/sdp", sdp),
            None => request.set_content_length(),
        }
        for (name, value) in headers {
            request.headers.set(name, value);
        }
        self.send(request, to, now)
    }

    /// A request outside any dialog.
    pub fn outside(
        &mut self,
        method: Method,
        to: SocketAddr,
        headers: &[(&str, &str)],
        now: Instant,
    ) -> usize {
        let cseq = format!("1 {method}");
        let mut request = Request::new(method, format!("sip:{to}").parse().unwrap())
            .with("Max-Forwards", "70")
            .with(
                "From",
                format!("<sip:{}@{}>;tag={}", self.name, self.address, self.tag),
            )
            .with("To", format!("<sip:{to}>"))
            .with("Call-ID", format!("outside-{}", self.sent.len()))
            .with("CSeq", cseq)
            .with("Contact", format!("<{}>", self.contact()));
        for (name, value) in headers {
            request.headers.set(name, value);
        }
        request.set_content_length();
        self.send(request, to, now)
    }

    fn send(&mut self, request: Request, to: SocketAddr, now: Instant) -> usize {
        let target = self.target(to);
        let client = self
            .endpoint
            .send_request(now, request.clone(), &target)
            .unwrap();
        self.sent.push(Sent {
            client,
            request,
            responses: Vec::new(),
            acked: false,
        });
        self.sent.len() - 1
    }

    pub fn reinvite(&mut self, sdp: Option<&str>, now: Instant) -> usize {
        let dialog = self.dialog.as_mut().unwrap();
        let mut request = dialog.request(Method::Invite).unwrap();
        match sdp {
            Some(sdp) => request.set_body("application/sdp", sdp),
            None => request.set_content_length(),
        }
        let to = super::US.parse().unwrap();
        self.send(request, to, now)
    }

    /// A request inside the dialog; its responses are under the index returned.
    pub fn request(&mut self, method: Method, headers: &[(&str, &str)], now: Instant) -> usize {
        self.request_with(method, headers, ("", ""), now)
    }

    /// The same with a body: its type and text.
    pub fn request_with(
        &mut self,
        method: Method,
        headers: &[(&str, &str)],
        (kind, body): (&str, &str),
        now: Instant,
    ) -> usize {
        let mut request = self.dialog.as_mut().unwrap().request(method).unwrap();
        for (name, value) in headers {
            request.headers.set(name, value);
        }
        match body {
            "" => request.set_content_length(),
            body => request.set_body(kind, body),
        }
        self.send(request, super::US.parse().unwrap(), now)
    }

    /// What came back of a request, in order.
    pub fn responses(&self, index: usize) -> &[Response] {
        &self.sent[index].responses
    }

    /// The Call-ID of a request.
    pub fn call_id_of(&self, index: usize) -> String {
        self.sent[index].request.headers.call_id().unwrap()
    }

    pub fn statuses(&self, index: usize) -> Vec<u16> {
        self.sent[index]
            .responses
            .iter()
            .map(|response| response.status)
            .collect()
    }

    pub fn last_body(&self, index: usize) -> String {
        let last = self.sent[index].responses.last().unwrap();
        String::from_utf8_lossy(&last.body).into_owned()
    }

    pub fn last_header(&self, index: usize, name: &str) -> Option<String> {
        let last = self.sent[index].responses.last()?;
        last.headers.get(name).map(std::borrow::Cow::into_owned)
    }

    pub fn ack(&mut self, index: usize, now: Instant) {
        self.ack_with(index, None, now);
    }

    pub fn ack_with(&mut self, index: usize, sdp: Option<&str>, now: Instant) {
        let sent = &mut self.sent[index];
        let response = sent
            .responses
            .iter()
            .find(|response| response.is_success())
            .unwrap();
        let cseq = sent.request.headers.cseq().unwrap().number;
        if self.dialog.is_none() {
            self.dialog = Dialog::uac(&sent.request, response).ok();
        }
        let dialog = self.dialog.as_mut().unwrap();
        dialog.handle_response(response);
        let mut ack = dialog.ack(cseq);
        match sdp {
            Some(sdp) => ack.set_body("application/sdp", sdp),
            None => ack.set_content_length(),
        }
        let (client, target) = (sent.client, self.target(super::US.parse().unwrap()));
        self.sent[index].acked = true;
        self.endpoint.send_ack(now, client, ack, &target).unwrap();
    }

    pub fn cancel(&mut self, index: usize, now: Instant) {
        self.cancel_with(index, &[], now);
    }

    pub fn cancel_with(&mut self, index: usize, headers: &[(&str, &str)], now: Instant) {
        self.endpoint
            .cancel(now, self.sent[index].client, headers)
            .unwrap();
    }

    /// A request in the early dialog that an INVITE of this agent's has made.
    pub fn early_request(
        &mut self,
        index: usize,
        method: Method,
        headers: &[(&str, &str)],
        now: Instant,
    ) -> usize {
        if self.dialog.is_none() {
            let sent = &self.sent[index];
            let early = sent.responses.iter().find(|one| one.status > 100).unwrap();
            self.dialog = Dialog::uac(&sent.request, early).ok();
        }
        self.request(method, headers, now)
    }

    /// A request inside the dialog with a body.
    pub fn request_with_body(
        &mut self,
        method: Method,
        kind: &str,
        body: &str,
        now: Instant,
    ) -> usize {
        let mut request = self.dialog.as_mut().unwrap().request(method).unwrap();
        request.set_body(kind, body);
        self.send(request, super::US.parse().unwrap(), now)
    }

    /// UPDATE with an offer.
    pub fn update(&mut self, sdp: &str, now: Instant) -> usize {
        let dialog = self.dialog.as_mut().unwrap();
        let mut request = dialog.request(Method::Update).unwrap();
        request.set_body("application/sdp", sdp);
        self.send(request, super::US.parse().unwrap(), now)
    }

    /// Gives up the request sent last.
    pub fn cancel_last(&mut self, now: Instant) {
        self.cancel(self.sent.len() - 1, now);
    }

    /// Replaces for somebody who is to take this agent's place.
    pub fn replaces(&self) -> String {
        let id = self.dialog.as_ref().unwrap().id();
        id.to_replaces().to_string()
    }

    pub fn bye(&mut self, now: Instant) {
        self.bye_with(&[], now);
    }

    pub fn bye_with(&mut self, headers: &[(&str, &str)], now: Instant) {
        let mut bye = self.dialog.as_mut().unwrap().request(Method::Bye).unwrap();
        for (name, value) in headers {
            bye.headers.set(name, value);
        }
        bye.set_content_length();
        let target = self.target(super::US.parse().unwrap());
        self.bye = self.endpoint.send_request(now, bye, &target).ok();
    }

    pub fn take_invite(&mut self) -> Option<Received> {
        self.invites.pop()
    }

    pub fn respond(&mut self, invite: &Received, status: u16, sdp: Option<&str>, now: Instant) {
        self.respond_with(invite, status, sdp, &[], now);
    }

    pub fn respond_with(
        &mut self,
        invite: &Received,
        status: u16,
        sdp: Option<&str>,
        headers: &[(&str, &str)],
        now: Instant,
    ) {
        if self.dialog.is_none() {
            self.dialog = Dialog::uas(&invite.request, &self.tag, &self.contact()).ok();
        }
        let dialog = self.dialog.as_mut().unwrap();
        if let Some(uuid) = self.uuid {
            dialog.speak_for(uuid);
        }
        let mut response = dialog.response(&invite.request, status);
        dialog.sent_response(&invite.request, status);
        for (name, value) in headers {
            response.headers.append(name, value);
        }
        match sdp {
            Some(sdp) => response.set_body("application/sdp", sdp),
            None => response.set_content_length(),
        }
        let _ = self.endpoint.respond(now, invite.tx, response);
    }

    /// Answers an INVITE with a body of any kind; these headers take the place of others of their name.
    pub fn respond_body(
        &mut self,
        invite: &Received,
        headers: &[(&str, &str)],
        (kind, body): (&str, &str),
        now: Instant,
    ) {
        if self.dialog.is_none() {
            self.dialog = Dialog::uas(&invite.request, &self.tag, &self.contact()).ok();
        }
        let dialog = self.dialog.as_mut().unwrap();
        let mut response = dialog.response(&invite.request, 200);
        dialog.sent_response(&invite.request, 200);
        for (name, value) in headers {
            response.headers.set(name, value);
        }
        response.set_body(kind, body);
        let _ = self.endpoint.respond(now, invite.tx, response);
    }

    /// BYE with a body.
    pub fn bye_body(&mut self, (kind, body): (&str, &str), now: Instant) {
        let mut bye = self.dialog.as_mut().unwrap().request(Method::Bye).unwrap();
        bye.set_body(kind, body);
        let target = self.target(super::US.parse().unwrap());
        self.bye = self.endpoint.send_request(now, bye, &target).ok();
    }

    pub fn receive(&mut self, path: Path, bytes: &[u8], now: Instant) {
        if self.deaf {
            return;
        }
        self.endpoint.handle_datagram(now, path, bytes);
        self.events(now);
    }

    pub fn timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.events(now);
    }

    fn events(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Request { tx, request, .. } => self.on_request(tx, request, now),
                Event::Cancel { invite, cancel } => {
                    self.cancels += 1;
                    self.last_cancel_reason = cancel
                        .headers
                        .get("Reason")
                        .unwrap_or_default()
                        .into_owned();
                    let known = self.known.iter().find(|(tx, _)| *tx == invite);
                    let request = known.map(|(_, request)| request.clone());
                    if let (Some(request), false) = (request, self.ignores_cancel) {
                        self.respond(
                            &Received {
                                tx: invite,
                                request,
                            },
                            487,
                            None,
                            now,
                        );
                    }
                }
                Event::Ack { request, .. } => {
                    self.acks += 1;
                    self.last_ack_body = String::from_utf8_lossy(&request.body).into_owned();
                }
                Event::Response { tx, response, .. } => self.on_response(tx, response, now),
                _ => {}
            }
        }
    }

    fn on_request(&mut self, tx: ServerTx, request: Request, now: Instant) {
        if request.method == Method::Invite {
            let left = self.byes > 0;
            let ended = |dialog: &Dialog| left || dialog.state() == DialogState::Terminated;
            if request.headers.to_tag().is_none() && self.dialog.as_ref().is_some_and(ended) {
                self.dialog = None;
            }
            if let Some(dialog) = &mut self.dialog
                && let Err(refusal) = dialog.receive(&request)
            {
                let mut response = dialog.response(&request, refusal.status);
                if let Some(seconds) = refusal.retry_after_s {
                    response.headers.set("Retry-After", seconds.to_string());
                }
                let _ = self.endpoint.respond(now, tx, response);
                return;
            }
            self.known.push((tx, request.clone()));
            self.invites.push(Received { tx, request });
            return;
        }
        if request.method == Method::Bye {
            self.byes += 1;
            self.last_bye_reason = request
                .headers
                .get("Reason")
                .unwrap_or_default()
                .into_owned();
        }
        self.requests.push(request.clone());
        let status = match request.method {
            Method::Info => self.info_status,
            _ => 200,
        };
        let mut response = match &self.dialog {
            Some(dialog) => dialog.response(&request, status),
            None => Response::to(&request, status),
        };
        if let (Some(seconds), Method::Update) = (self.refreshes_for, &request.method) {
            let value = format!("{seconds};refresher=uac");
            response.headers.set("Session-Expires", value);
        }
        response.set_content_length();
        let _ = self.endpoint.respond(now, tx, response);
    }

    fn on_response(&mut self, tx: ClientTx, response: Response, now: Instant) {
        if self.bye == Some(tx) {
            if response.is_final() {
                self.bye_status = Some(response.status);
            }
            return;
        }
        let Some(index) = self.sent.iter().position(|sent| sent.client == tx) else {
            return;
        };
        let success = response.is_success();
        let rseq = response
            .headers
            .get("RSeq")
            .map(std::borrow::Cow::into_owned);
        if response.is_final()
            && let Some(dialog) = &mut self.dialog
        {
            dialog.handle_response(&response);
        }
        self.sent[index].responses.push(response);
        if let (Some(rseq), true) = (rseq, self.auto_prack) {
            let rack = format!("{rseq} 1 INVITE");
            self.early_request(index, Method::Prack, &[("RAck", &rack)], now);
        }
        if success && self.auto_ack && !self.sent[index].acked {
            self.ack(index, now);
        }
    }
}
