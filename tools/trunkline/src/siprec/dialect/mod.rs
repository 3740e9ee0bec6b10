//! `trunkline siprec dialect`: a recorder for one session, which tells how its client writes.

mod family;
mod told;

use super::report::{Finding, Report, Verdict};
use anyhow::{Context, Result};
use serde_json::json;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use trunkline_rtpgen::media::{Media, StreamId, StreamSpec};
use trunkline_rtpgen::sip::{Agent, CallEvent, CallEvents, Dialog};
use trunkline_sdp::{Description, OriginState, Ours, Protocol, write_received};
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::{ServerTx, Transport};

/// Lines whose media is looked at.
const LINES_MAX: usize = 8;
/// How long the answer to our BYE may take.
const BYE_PATIENCE: Duration = Duration::from_secs(2);
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, MESSAGE";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to listen for SIP, UDP and TCP; media comes to the same address.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5060")]
    listen: SocketAddr,
    /// End the session after so long, s [default: when the client does].
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: Option<u32>,
    /// The findings at once at the end, as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let mut report = Report::new(!options.json);
    let result = runtime.block_on(listen(options, &mut report));
    runtime.shutdown_timeout(Duration::from_secs(1));
    let head = json!({ "listen": options.listen.to_string(), "call_id": result? });
    report.finish(head);
    Ok(match report.verdict() {
        Verdict::Fail => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

/// Waits for a session and sees it through. Gives its Call-ID.
async fn listen(options: &Options, report: &mut Report) -> Result<String> {
    let (interrupt, mut stop) = watch::channel(false);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupt.send_replace(true);
        }
        interrupt.closed().await;
    });
    let (incoming, mut arrivals) = mpsc::unbounded_channel();
    let agent = Agent::start(options.listen, true, Some(incoming))
        .await
        .with_context(|| format!("cannot listen for SIP on {}", options.listen))?;
    if !options.json {
        println!(
            "waiting for a recording session on {}, UDP and TCP",
            agent.local()
        );
    }
    let arrival = tokio::select! {
        arrival = arrivals.recv() => arrival,
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let Some((tx, invite, events)) = arrival else {
        report.add(Finding::new("client", Verdict::Fail, "", "no INVITE came"));
        return Ok(String::new());
    };
    let call_id = invite.headers.call_id().unwrap_or_default();
    let media = Media::start().context("the media thread cannot be started")?;
    let mut session = Session {
        agent,
        media,
        report,
        events,
        lines: Vec::new(),
        origin: OriginState::new(rand::random()),
        ended: false,
    };
    if let Some(mut dialog) = session.open(tx, &invite).await {
        let limit = options.seconds.map(u64::from).map(Duration::from_secs);
        session.follow(&mut arrivals, limit, &mut stop).await;
        if !session.ended {
            session.bye(&mut dialog).await;
        }
        session.hear().await;
    }
    Ok(call_id)
}

/// A recording session that we take.
struct Session<'a> {
    agent: Arc<Agent>,
    media: Media,
    report: &'a mut Report,
    events: CallEvents,
    /// The stream and port of each m-line that is taken.
    lines: Vec<Option<(StreamId, u16)>>,
    origin: OriginState,
    ended: bool,
}

impl Session<'_> {
    fn contact(&self) -> String {
        format!("<sip:dialect@{}>;+sip.srs", self.agent.local())
    }

    /// Judges and answers the INVITE; `None` where there is nothing to take.
    async fn open(&mut self, tx: ServerTx, invite: &Request) -> Option<Dialog> {
        let told = told::invite(invite);
        told.findings
            .into_iter()
            .for_each(|one| self.report.add(one));
        let transport = match invite.headers.via() {
            Ok(via) if via.transport.eq_ignore_ascii_case("TCP") => Transport::Tcp,
            _ => Transport::Udp,
        };
        let contact = self.contact();
        let dialog = Dialog::of_callee(invite, &self.agent.local_tag(tx), &contact, transport);
        let (Some(offer), Some(dialog)) = (told.offer, dialog) else {
            let text = "answered 488: no session description, or no usable Contact";
            self.report
                .add(Finding::new("answer", Verdict::Fail, "RFC 3264 5", text));
            self.agent.respond(tx, Response::to(invite, 488));
            return None;
        };
        self.take(&offer).await;
        self.answer(tx, invite, Some(&offer));
        Some(dialog)
    }

    /// Opens a place for each line that has none yet.
    async fn take(&mut self, offer: &Description) {
        let known = self.lines.len();
        for media in offer
            .media
            .iter()
            .skip(known)
            .take(LINES_MAX.saturating_sub(known))
        {
            let opened = match media.protocol == Protocol::Rtp && media.port != 0 {
                true => self.stream().await,
                false => None,
            };
            self.lines.push(opened);
        }
    }

    async fn stream(&self) -> Option<(StreamId, u16)> {
        let id = self.media.new_id();
        let spec = StreamSpec {
            address: self.agent.local().ip(),
            port: None,
            send_hz: 0,
            sound: None,
            expect_hz: None,
            hears: None,
            payload_type: 0,
            expect_payload_type: None,
            rtcp: false,
        };
        let address = self.media.open(id, spec).await.ok()?;
        Some((id, address.port()))
    }

    /// A 200, with our description where there was one.
    fn answer(&mut self, tx: ServerTx, request: &Request, offer: Option<&Description>) {
        let mut response = Response::to(request, 200)
            .with("Contact", self.contact())
            .with("Allow", ALLOW)
            .with("Accept", "application/sdp, application/rs-metadata+xml");
        if let Some(offer) = offer {
            let ports: Vec<Option<u16>> = self
                .lines
                .iter()
                .map(|one| one.map(|(_, port)| port))
                .collect();
            let ours = Ours {
                address: self.agent.local().ip(),
                ports: &ports,
                record: None,
            };
            let written = write_received(offer, &[], &ours, &mut self.origin);
            response.set_body("application/sdp", written.text);
        }
        self.agent.respond(tx, response);
    }

    /// Until the client ends it, the time is over, or the user has had enough.
    async fn follow(
        &mut self,
        arrivals: &mut mpsc::UnboundedReceiver<(ServerTx, Request, CallEvents)>,
        limit: Option<Duration>,
        stop: &mut watch::Receiver<bool>,
    ) {
        let over = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        while !self.ended {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(CallEvent::Request(tx, request)) => self.take_in(tx, &request).await,
                    Some(CallEvent::NoAck) => {
                        let text = "no ACK came for our 200";
                        self.report.add(Finding::new("ack", Verdict::Fail, "RFC 3261 13.3.1.4", text));
                        return;
                    }
                    Some(_) => {}
                    None => return,
                },
                // One at a time: others are told to come later.
                Some((tx, request, _)) = arrivals.recv() => {
                    self.agent.respond(tx, Response::to(&request, 486));
                }
                () = &mut over => return,
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn take_in(&mut self, tx: ServerTx, request: &Request) {
        let told = told::later(request);
        told.findings
            .into_iter()
            .for_each(|one| self.report.add(one));
        if let Some(offer) = &told.offer {
            self.take(offer).await;
        }
        self.ended = request.method == Method::Bye;
        self.answer(tx, request, told.offer.as_ref());
    }

    async fn bye(&mut self, dialog: &mut Dialog) {
        let bye = dialog.request(Method::Bye);
        let call_id = bye.headers.call_id().unwrap_or_default();
        let hop = dialog.next_hop();
        let sent = hop.map(|(transport, remote)| {
            let target = self.agent.target(transport, remote);
            self.agent.send(&call_id, bye, &target)
        });
        let Some(Ok(tx)) = sent else {
            let text = "our BYE could not be sent: the client's Contact leads nowhere";
            self.report
                .add(Finding::new("bye", Verdict::Fail, "RFC 3261 12.1.1", text));
            return;
        };
        let answered = async {
            while let Some(event) = self.events.recv().await {
                if let CallEvent::Response(of, response) = event
                    && of == tx
                    && response.is_final()
                {
                    return Some(response.status);
                }
            }
            None
        };
        let finding = match tokio::time::timeout(BYE_PATIENCE, answered).await {
            Ok(Some(status)) => {
                let verdict = if status == 200 {
                    Verdict::Pass
                } else {
                    Verdict::Warn
                };
                Finding::new(
                    "bye",
                    verdict,
                    "RFC 3261 15",
                    format!("our BYE was answered {status}"),
                )
            }
            _ => Finding::new(
                "bye",
                Verdict::Fail,
                "RFC 3261 15",
                "our BYE was not answered",
            ),
        };
        self.report.add(finding);
    }

    /// What came on each line.
    async fn hear(&mut self) {
        for (place, line) in std::mem::take(&mut self.lines).into_iter().enumerate() {
            let Some((id, _)) = line else {
                continue;
            };
            let heard = self.media.close(id).await.received;
            let line = place + 1;
            if heard.packets == 0 {
                let text = format!("line {line}: nothing was heard");
                self.report
                    .add(Finding::new("media", Verdict::Warn, "RFC 7866 8", text));
                continue;
            }
            let text = format!(
                "line {line}: {} packets, {} lost, {} sources, jitter {:.1} ms, {} RTCP",
                heard.packets,
                heard.expected.saturating_sub(heard.distinct),
                // The first is no change.
                heard.source_changes + 1,
                heard.jitter_ms,
                heard.rtcp
            );
            self.report
                .add(Finding::new("media", Verdict::Pass, "RFC 7866 8", text));
        }
    }
}
