//! The SIP side of a probe: requests with their answers, and what the recorder asks meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use trunkline_rtpgen::sip::{Agent, CallEvent, CallEvents, Dialog};
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::{ClientTx, ServerTx, Target, Transport};

/// What we are, in User-Agent.
pub(super) const USER_AGENT: &str = concat!("trunkline-probe/", env!("CARGO_PKG_VERSION"));
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO";
/// How long a cancelled INVITE may take to end.
const CANCEL_PATIENCE: Duration = Duration::from_secs(1);

/// What came of a request.
#[derive(Debug)]
pub(super) enum Heard {
    /// A final response, after so many ms.
    Answer(Response, f64),
    /// No final response in time.
    Silence,
    /// It could not be sent, or nobody is there.
    Unsent,
    /// The user has had enough.
    Interrupted,
}

/// A call with a recorder.
pub(super) struct Talk {
    pub(super) agent: Arc<Agent>,
    events: CallEvents,
    pub(super) hop: (Transport, SocketAddr),
    pub(super) call_id: String,
    pub(super) tag: String,
    pub(super) patience: Duration,
    stop: watch::Receiver<bool>,
    pub(super) dialog: Option<Dialog>,
    /// The description in force, for re-INVITEs of the recorder's.
    pub(super) sdp: String,
    /// How the recorder ended the session, if it did.
    pub(super) left: Option<String>,
    /// What the recorder asked of us, by its method.
    pub(super) asked: Vec<String>,
    /// The recorder wants a full document.
    pub(super) wants_snapshot: bool,
}

impl Talk {
    pub(super) fn new(
        agent: Arc<Agent>,
        hop: (Transport, SocketAddr),
        patience: Duration,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let (tag, call_id) = agent.new_ids();
        let events = agent.open_call(&call_id);
        Self {
            agent,
            events,
            hop,
            call_id,
            tag,
            patience,
            stop,
            dialog: None,
            sdp: String::new(),
            left: None,
            asked: Vec::new(),
            wants_snapshot: false,
        }
    }

    pub(super) fn contact(&self) -> String {
        let parameter = match self.hop.0 {
            Transport::Udp => "",
            Transport::Tcp | Transport::Tls => ";transport=tcp",
        };
        format!("<sip:probe@{}{parameter}>;+sip.src", self.agent.local())
    }

    /// A request within the dialog, with what every one of ours says.
    pub(super) fn request(&mut self, method: Method) -> Option<Request> {
        let contact = self.contact();
        let request = self.dialog.as_mut()?.request(method);
        Some(dressed(request, &contact))
    }

    /// Where requests within the dialog go; a Contact that is a name is reached as the first request was.
    fn dialog_target(&self) -> Target {
        let hop = self.dialog.as_ref().and_then(Dialog::next_hop);
        let (transport, remote) = hop.unwrap_or(self.hop);
        self.agent.target(transport, remote)
    }

    /// Sends a request and waits for its final response. Of an INVITE the ACK is left to
    /// [`Talk::acknowledge`]; one that is given up is cancelled.
    pub(super) async fn ask(&mut self, request: Request) -> (Heard, Option<ClientTx>) {
        let invite = (request.method == Method::Invite).then(|| request.clone());
        let target = match request.headers.to_tag() {
            Some(_) => self.dialog_target(),
            None => self.agent.target(self.hop.0, self.hop.1),
        };
        let begin = Instant::now();
        let Ok(tx) = self.agent.send(&self.call_id, request, &target) else {
            return (Heard::Unsent, None);
        };
        let deadline = tokio::time::Instant::now() + self.patience;
        let heard = self.await_final(tx, begin, deadline, true).await;
        if let (Some(invite), Heard::Silence | Heard::Interrupted) = (invite, &heard) {
            self.give_up(tx, &invite).await;
        }
        (heard, Some(tx))
    }

    async fn await_final(
        &mut self,
        tx: ClientTx,
        begin: Instant,
        deadline: tokio::time::Instant,
        heeds_stop: bool,
    ) -> Heard {
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(CallEvent::Response(of, response)) if of == tx && response.is_final() => {
                        return Heard::Answer(response, begin.elapsed().as_secs_f64() * 1000.0);
                    }
                    Some(CallEvent::Failed(of)) if of == tx => return Heard::Unsent,
                    Some(CallEvent::Request(server, request)) => self.serve(server, &request),
                    Some(_) => {}
                    None => return Heard::Unsent,
                },
                () = tokio::time::sleep_until(deadline) => return Heard::Silence,
                () = stopped(&mut stop), if heeds_stop => return Heard::Interrupted,
            }
        }
    }

    /// Cancels an INVITE. A 2xx that crosses makes the session all the same: it gets its ACK, and BYE at the end.
    async fn give_up(&mut self, tx: ClientTx, invite: &Request) {
        self.agent.cancel(tx);
        let deadline = tokio::time::Instant::now() + CANCEL_PATIENCE;
        let heard = self.await_final(tx, Instant::now(), deadline, false).await;
        let Heard::Answer(response, _) = heard else {
            return;
        };
        if response.is_success() {
            self.establish(invite, &response);
            self.acknowledge(tx);
        }
    }

    /// Takes the dialog that a 2xx makes, or goes on; `false` when it has no usable Contact.
    pub(super) fn establish(&mut self, invite: &Request, response: &Response) -> bool {
        let cseq = invite.headers.cseq().map_or(1, |cseq| cseq.number);
        let known = self.dialog.take();
        let made = || Dialog::of_caller(invite, response, &self.contact(), self.hop.0);
        // An INVITE that answered a challenge has another number than the first.
        self.dialog = known.or_else(made).map(|dialog| dialog.numbered(cseq));
        self.dialog.is_some()
    }

    /// Sends the ACK of a 2xx.
    pub(super) fn acknowledge(&mut self, tx: ClientTx) {
        let target = self.dialog_target();
        if let Some(dialog) = &mut self.dialog {
            let ack = dialog.request(Method::Ack).with("User-Agent", USER_AGENT);
            // It fails only where the next request does too.
            let _ = self.agent.send_ack(tx, ack, &target);
        }
    }

    /// Sends BYE and waits for its answer, whatever the user does.
    pub(super) async fn bye(&mut self, request: Request) -> Heard {
        let target = self.dialog_target();
        let begin = Instant::now();
        let Ok(tx) = self.agent.send(&self.call_id, request, &target) else {
            return Heard::Unsent;
        };
        let deadline = tokio::time::Instant::now() + self.patience;
        self.await_final(tx, begin, deadline, false).await
    }

    /// Lets time pass; `false` when the session is over or the user has had enough.
    pub(super) async fn pass(&mut self, time: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + time;
        let mut stop = self.stop.clone();
        while self.left.is_none() {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(CallEvent::Request(server, request)) => self.serve(server, &request),
                    Some(_) => {}
                    None => return false,
                },
                () = tokio::time::sleep_until(deadline) => return true,
                () = stopped(&mut stop) => return false,
            }
        }
        false
    }

    pub(super) fn is_interrupted(&self) -> bool {
        *self.stop.borrow()
    }

    /// Answers what the recorder asks: its re-INVITE gets our description again, 488 if it adds lines
    /// (RFC 7866 section 7.2).
    fn serve(&mut self, tx: ServerTx, request: &Request) {
        self.asked.push(request.method.as_str().to_owned());
        let mut response = match request.method {
            Method::Bye => {
                let reason = request.headers.get("Reason");
                self.left = Some(reason.map_or_else(String::new, |text| text.into_owned()));
                Response::to(request, 200)
            }
            Method::Invite if adds_lines(&request.body, &self.sdp) => Response::to(request, 488),
            Method::Invite => {
                Response::to(request, 200).with_body("application/sdp", self.sdp.clone())
            }
            Method::Update => {
                self.wants_snapshot |= trunkline_siprec::snapshot::read(&request.body).is_some();
                Response::to(request, 200)
            }
            Method::Options | Method::Info | Method::Message | Method::Notify => {
                Response::to(request, 200)
            }
            _ => Response::to(request, 405).with("Allow", ALLOW),
        };
        response.headers.append("Contact", self.contact());
        self.agent.respond(tx, response);
    }
}

fn adds_lines(offer: &[u8], ours: &str) -> bool {
    let lines = |text: &[u8]| {
        trunkline_sdp::Description::parse(text).map_or(0, |description| description.media.len())
    };
    lines(offer) > lines(ours.as_bytes())
}

/// Headers that all our requests have (RFC 7866 section 6.1.1).
pub(super) fn dressed(request: Request, contact: &str) -> Request {
    request
        .with("Contact", contact)
        .with("User-Agent", USER_AGENT)
        .with("Allow", ALLOW)
        .with("Accept", "application/sdp, application/rs-metadata+xml")
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
