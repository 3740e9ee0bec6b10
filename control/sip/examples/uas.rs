//! A user agent that answers calls and hangs up: rings, answers, and after a while sends BYE.
//!
//! `cargo run -p trunkline-sip --example uas -- 127.0.0.1:5070`

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use trunkline_sip::agent::{AgentError, AgentEvent, Body, CallState, EventKind};
use trunkline_sip::message::Headers;

pub mod common;

use common::UdpAgent;

/// How calls are treated.
pub struct Options {
    /// How long to ring.
    pub ring: Duration,
    /// How long to talk before hanging up.
    pub talk: Duration,
    /// Stop after so many calls; 0 for never.
    pub calls: usize,
}

fn main() -> io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:5070".to_owned());
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let mut io = UdpAgent::bind(address, "uas")?;
    println!("answering on {}", io.local());
    let options = Options {
        ring: Duration::from_secs(1),
        talk: Duration::from_secs(10),
        calls: 0,
    };
    run(&mut io, &options).map(|_| ())
}

/// Answers calls; gives their number when it stops.
pub fn run(io: &mut UdpAgent<()>, options: &Options) -> io::Result<usize> {
    let mut ended = 0;
    while options.calls == 0 || ended < options.calls {
        let Some(event) = io.next_event(Duration::from_secs(1))? else {
            continue;
        };
        ended += usize::from(matches!(event.kind, EventKind::Ended(_)));
        match on_event(io, options, event) {
            // The caller gave up in the meantime.
            Ok(()) | Err(AgentError::Ended) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    // The last answers may have to be repeated.
    while io.agent.alive() != [0; 4] && io.next_event(Duration::from_secs(1))?.is_some() {}
    Ok(ended)
}

fn on_event(
    io: &mut UdpAgent<()>,
    options: &Options,
    event: AgentEvent<()>,
) -> Result<(), AgentError> {
    let Some(dialog) = event.dialog else {
        return Ok(());
    };
    let (now, local, none) = (Instant::now(), io.local(), Headers::new());
    let agent = &mut io.agent;
    match event.kind {
        EventKind::Incoming { .. } => {
            agent.ring(now, dialog, 180, true, &none, None)?;
            agent.set_timer(dialog, Some(now + options.ring))
        }
        EventKind::Timer => {
            let call = agent.view(dialog)?;
            if call.state == CallState::Early {
                let answer = answer_sdp(call.remote.body.as_ref(), local);
                agent.accept(now, dialog, &none, Some(answer))
            } else {
                agent.hangup(now, dialog, &none)
            }
        }
        EventKind::Acknowledged { .. } => agent.set_timer(dialog, Some(now + options.talk)),
        EventKind::Offer {
            request_handle,
            request,
            ..
        } => {
            let offer = Body::of(&request.headers, &request.body);
            let answer = answer_sdp(offer.as_ref(), local);
            agent.answer(now, request_handle, 200, &none, Some(answer))
        }
        EventKind::Request { request_handle, .. } => {
            agent.answer(now, request_handle, 200, &none, None)
        }
        EventKind::Refer { request_handle, .. } => {
            agent.answer(now, request_handle, 603, &none, None)
        }
        _ => Ok(()),
    }
}

/// An answer that takes the first audio line, silent on our side, and refuses the others; an
/// offer of one audio line when there is nothing to answer.
fn answer_sdp(offer: Option<&Body>, local: SocketAddr) -> Body {
    let family = if local.is_ipv4() { "IP4" } else { "IP6" };
    let ip = local.ip();
    let mut sdp =
        format!("v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n");
    let offer = offer.map_or_else(String::new, |body| {
        String::from_utf8_lossy(&body.bytes).into_owned()
    });
    let mut taken = false;
    for line in offer.lines().filter(|line| line.starts_with("m=")) {
        let mut words = line.split(' ');
        let (kind, _port) = (words.next().unwrap_or("m=audio"), words.next());
        let rest: Vec<&str> = words.collect();
        if kind == "m=audio" && !taken {
            taken = true;
            sdp.push_str(&format!("{kind} 9 {}\r\na=inactive\r\n", rest.join(" ")));
        } else {
            sdp.push_str(&format!("{kind} 0 {}\r\n", rest.join(" ")));
        }
    }
    if !offer.contains("m=") {
        sdp.push_str("m=audio 9 RTP/AVP 0\r\na=inactive\r\n");
    }
    Body::sdp(sdp)
}
