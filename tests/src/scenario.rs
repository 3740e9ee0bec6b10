//! SIPp scenarios, step by step.

use std::fmt::Write as _;
use std::path::Path;

/// A scenario being written.
#[derive(Debug, Clone)]
pub struct Scenario {
    steps: String,
    /// Request number of the next request within a dialog.
    cseq: u32,
    caller: bool,
    user: String,
    /// Steps so far, and the number of the last INVITE's: SIPp counts branches by steps back.
    count: usize,
    invite: usize,
    /// Request number of the last INVITE.
    invite_cseq: u32,
}

/// The SDP lines after `t=` for one codec of G.711.
#[must_use]
pub fn audio(payload_type: u8) -> String {
    let name = if payload_type == 0 { "PCMU" } else { "PCMA" };
    format!(
        "m=audio [media_port] RTP/AVP {payload_type}\na=rtpmap:{payload_type} {name}/8000\na=ptime:20\n"
    )
}

/// The recorded route; SIPp leaves the line out where there is none.
const ROUTES: &str = "[routes]\n";

fn description(version: u32, media: &str) -> String {
    format!(
        "v=0\no=sipp 20001 {version} IN IP4 [media_ip]\ns=-\nc=IN IP4 [media_ip]\nt=0 0\n{media}"
    )
}

impl Scenario {
    fn new(user: &str, caller: bool) -> Self {
        let user = user.to_owned();
        Self {
            steps: String::new(),
            cseq: 0,
            caller,
            user,
            count: 0,
            invite: 0,
            invite_cseq: 0,
        }
    }

    /// One that begins with an INVITE of ours. `user` is the caller's user part.
    #[must_use]
    pub fn caller(user: &str) -> Self {
        Self::new(user, true)
    }

    /// One that begins with an INVITE to us.
    #[must_use]
    pub fn callee(user: &str) -> Self {
        Self::new(user, false)
    }

    /// Sends INVITE (or re-INVITE), described by the SDP lines after `t=`; empty = no body.
    #[must_use]
    pub fn invite(self, media: &str) -> Self {
        self.invite_with("", media)
    }

    /// The same with further headers, whole lines.
    #[must_use]
    pub fn invite_with(mut self, headers: &str, media: &str) -> Self {
        self.cseq += 1;
        let (uri, to, route) = match self.cseq {
            1 => ("sip:[service]@[remote_ip]:[remote_port]", "", ""),
            _ => ("[next_url]", "[peer_tag_param]", ROUTES),
        };
        let (user, cseq) = (self.user.clone(), self.cseq);
        let mut message = format!(
            "INVITE {uri} SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n\
             From: \"{user}\" <sip:{user}@[local_ip]:[local_port]>;tag=[pid]c[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>{to}\nCall-ID: [call_id]\n\
             CSeq: {cseq} INVITE\nContact: <sip:{user}@[local_ip]:[local_port];transport=[transport]>\n\
             {route}{headers}Max-Forwards: 70\n"
        );
        if media.is_empty() {
            message += "Content-Length: 0\n\n";
        } else {
            message += "Content-Type: application/sdp\nContent-Length: [len]\n\n";
            message += &description(cseq, media);
        }
        (self.invite, self.invite_cseq) = (self.count, self.cseq);
        self.send(&message, true);
        self
    }

    /// Sends a request within the caller's dialog, or CANCEL of its INVITE.
    #[must_use]
    pub fn request(mut self, method: &str) -> Self {
        let first = matches!(method, "CANCEL");
        let uri = if first {
            "sip:[service]@[remote_ip]:[remote_port]"
        } else {
            "[next_url]"
        };
        let to = if first { "" } else { "[peer_tag_param]" };
        let route = if first { "" } else { ROUTES };
        if !matches!(method, "CANCEL" | "ACK") {
            self.cseq += 1;
        }
        // CANCEL belongs to the INVITE's transaction.
        let branch = if first {
            self.invite_branch()
        } else {
            "[branch]".to_owned()
        };
        // ACK and CANCEL have the number of their INVITE.
        let cseq = match method {
            "CANCEL" | "ACK" => self.invite_cseq,
            _ => self.cseq,
        };
        let user = self.user.clone();
        let message = format!(
            "{method} {uri} SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch={branch}\n\
             From: \"{user}\" <sip:{user}@[local_ip]:[local_port]>;tag=[pid]c[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>{to}\nCall-ID: [call_id]\n\
             CSeq: {cseq} {method}\n{route}Max-Forwards: 70\nContent-Length: 0\n\n"
        );
        self.send(&message, method != "ACK");
        self
    }

    /// Waits for a reliable provisional response and keeps its number.
    #[must_use]
    pub fn expect_reliable(mut self, status: u16) -> Self {
        self.line(&format!(
            "<recv response=\"{status}\" rrs=\"true\"><action><ereg regexp=\"[0-9]+\" search_in=\"hdr\" \
             header=\"RSeq:\" check_it=\"true\" assign_to=\"6\"/><log message=\"[$6]\"/></action></recv>"
        ))
    }

    /// Acknowledges it by PRACK.
    #[must_use]
    pub fn prack(mut self) -> Self {
        let invite = self.cseq;
        self.cseq += 1;
        let (user, cseq) = (self.user.clone(), self.cseq);
        let message = format!(
            "PRACK [next_url] SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n\
             From: \"{user}\" <sip:{user}@[local_ip]:[local_port]>;tag=[pid]c[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]\nCall-ID: [call_id]\n\
             CSeq: {cseq} PRACK\nRAck: [$6] {invite} INVITE\n{ROUTES}Max-Forwards: 70\nContent-Length: 0\n\n"
        );
        self.send(&message, true);
        self
    }

    /// Sends INFO with a key (application/dtmf-relay) within the caller's dialog.
    #[must_use]
    pub fn press(mut self, key: char) -> Self {
        self.cseq += 1;
        let (user, cseq) = (self.user.clone(), self.cseq);
        let message = format!(
            "INFO [next_url] SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n\
             From: \"{user}\" <sip:{user}@[local_ip]:[local_port]>;tag=[pid]c[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]\nCall-ID: [call_id]\n\
             CSeq: {cseq} INFO\n{ROUTES}Max-Forwards: 70\nContent-Type: application/dtmf-relay\n\
             Content-Length: [len]\n\nSignal={key}\nDuration=160\n"
        );
        self.send(&message, true);
        self
    }

    /// Sends a request with a body as the caller: INVITE, or one within the dialog. `headers` are whole
    /// lines, an INVITE's Contact among them; an empty body has no type.
    #[must_use]
    pub fn with_body(mut self, method: &str, headers: &str, kind: &str, body: &str) -> Self {
        self.cseq += 1;
        let (uri, to, route) = match self.cseq {
            1 => ("sip:[service]@[remote_ip]:[remote_port]", "", ""),
            _ => ("[next_url]", "[peer_tag_param]", ROUTES),
        };
        let (user, cseq) = (self.user.clone(), self.cseq);
        let from = if headers.starts_with("From:") {
            String::new()
        } else {
            format!(
                "From: \"{user}\" <sip:{user}@[local_ip]:[local_port]>;tag=[pid]c[call_number]\n"
            )
        };
        let mut message = format!(
            "{method} {uri} SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n\
             {from}{headers}To: <sip:[service]@[remote_ip]:[remote_port]>{to}\nCall-ID: [call_id]\n\
             CSeq: {cseq} {method}\n{route}Max-Forwards: 70\n"
        );
        if kind.is_empty() {
            message += "Content-Length: 0\n\n";
        } else {
            let _ = write!(
                message,
                "Content-Type: {kind}\nContent-Length: [len]\n\n{body}"
            );
        }
        if method == "INVITE" {
            self.invite = self.count;
        }
        self.send(&message, true);
        self
    }

    /// Acknowledges a failure, hop by hop: with the INVITE's own branch.
    #[must_use]
    pub fn acknowledge_failure(mut self) -> Self {
        let (user, branch) = (self.user.clone(), self.invite_branch());
        let message = format!(
            "ACK sip:[service]@[remote_ip]:[remote_port] SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch={branch}\n\
             From: \"{user}\" <sip:{user}@[local_ip]:[local_port]>;tag=[pid]c[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]\nCall-ID: [call_id]\n\
             CSeq: 1 ACK\nMax-Forwards: 70\nContent-Length: 0\n\n"
        );
        self.send(&message, false);
        self
    }

    /// Answers the request that came last; SDP lines after `t=`, empty = no body.
    #[must_use]
    pub fn respond(self, status: &str, media: &str) -> Self {
        self.respond_with(status, "", media)
    }

    /// The same with further headers, whole lines.
    #[must_use]
    pub fn respond_with(mut self, status: &str, headers: &str, media: &str) -> Self {
        self.cseq += 1;
        let tag = if self.caller {
            ""
        } else {
            ";tag=[pid]s[call_number]"
        };
        let user = self.user.clone();
        let mut message = format!(
            "SIP/2.0 {status}\n[last_Via:]\n[last_Record-Route:]\n[last_From:]\n[last_To:]{tag}\n[last_Call-ID:]\n\
             [last_CSeq:]\nContact: <sip:{user}@[local_ip]:[local_port];transport=[transport]>\n{headers}"
        );
        if media.is_empty() {
            message += "Content-Length: 0\n\n";
        } else {
            message += "Content-Type: application/sdp\nContent-Length: [len]\n\n";
            message += &description(self.cseq, media);
        }
        // Responses to INVITE with a body are finals and repeated until acknowledged.
        self.send(&message, !media.is_empty() && status.starts_with('2'));
        self
    }

    /// Answers a request within the dialog: its To has our tag already.
    #[must_use]
    pub fn respond_in_dialog(mut self, status: &str, media: &str) -> Self {
        let was_caller = std::mem::replace(&mut self.caller, true);
        let mut done = self.respond(status, media);
        done.caller = was_caller;
        done
    }

    /// Answers the INVITE after a later request (CANCEL, PRACK) came: with what the INVITE said; SDP lines after
    /// `t=`, empty = no body.
    #[must_use]
    pub fn respond_to_invite(mut self, status: &str, media: &str) -> Self {
        let user = self.user.clone();
        let body = match media {
            "" => "Content-Length: 0\n\n".to_owned(),
            _ => format!(
                "Content-Type: application/sdp\nContent-Length: [len]\n\n{}",
                description(2, media)
            ),
        };
        let message = format!(
            "SIP/2.0 {status}\nVia:[$3]\nFrom:[$1]\nTo:[$2];tag=[pid]s[call_number]\n\
             Call-ID: [call_id]\nCSeq:[$4]\n\
             Contact: <sip:{user}@[local_ip]:[local_port]>\n{body}"
        );
        self.send(&message, true);
        self
    }

    /// Sends the ACK of a 2xx with a description: the answer to an offer in the 2xx.
    #[must_use]
    pub fn acknowledge_with(mut self, media: &str) -> Self {
        let (user, cseq) = (self.user.clone(), self.invite_cseq);
        let message = format!(
            "ACK [next_url] SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n\
             From: \"{user}\" <sip:{user}@[local_ip]:[local_port]>;tag=[pid]c[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]\nCall-ID: [call_id]\n\
             CSeq: {cseq} ACK\nMax-Forwards: 70\nContent-Type: application/sdp\n\
             Content-Length: [len]\n\n{}",
            description(cseq, media)
        );
        self.send(&message, false);
        self
    }

    /// Sends BYE as the callee, from what the INVITE said (see [`Scenario::expect_invite`]).
    #[must_use]
    pub fn bye_as_callee(self) -> Self {
        self.request_as_callee("BYE", 1, "")
    }

    /// Sends a request as the callee; `headers` are whole lines.
    #[must_use]
    pub fn request_as_callee(mut self, method: &str, cseq: u32, headers: &str) -> Self {
        self.send_as_callee(method, cseq, headers, "");
        self
    }

    /// Sends a re-INVITE as the callee; SDP lines after `t=`, empty = no body.
    #[must_use]
    pub fn reinvite_as_callee(mut self, cseq: u32, media: &str) -> Self {
        self.send_as_callee("INVITE", cseq, "", media);
        self
    }

    /// Acknowledges the 2xx to it.
    #[must_use]
    pub fn acknowledge_as_callee(mut self, cseq: u32) -> Self {
        self.send_as_callee("ACK", cseq, "", "");
        self
    }

    fn send_as_callee(&mut self, method: &str, cseq: u32, headers: &str, media: &str) {
        let user = &self.user;
        let body = match media {
            "" => "Content-Length: 0\n\n".to_owned(),
            _ => format!(
                "Content-Type: application/sdp\nContent-Length: [len]\n\n{}",
                description(cseq + 100, media)
            ),
        };
        let message = format!(
            "{method} [next_url] SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n\
             From:[$2];tag=[pid]s[call_number]\nTo:[$1]\nCall-ID: [call_id]\nCSeq: {cseq} {method}\n\
             Contact: <sip:{user}@[local_ip]:[local_port];transport=[transport]>\n{ROUTES}{headers}Max-Forwards: 70\n{body}"
        );
        self.send(&message, method != "ACK");
    }

    /// Waits for the first INVITE and keeps its From, To, Via, CSeq and route.
    #[must_use]
    pub fn expect_invite(mut self) -> Self {
        self.count += 1;
        self.steps += "<recv request=\"INVITE\" rrs=\"true\"><action>\
            <ereg regexp=\".*\" search_in=\"hdr\" header=\"From:\" assign_to=\"1\"/>\
            <ereg regexp=\".*\" search_in=\"hdr\" header=\"To:\" assign_to=\"2\"/>\
            <ereg regexp=\".*\" search_in=\"hdr\" header=\"Via:\" assign_to=\"3\"/>\
            <ereg regexp=\".*\" search_in=\"hdr\" header=\"CSeq:\" assign_to=\"4\"/>\
            <log message=\"[$1] [$2] [$3] [$4]\"/></action></recv>\n";
        self
    }

    /// Waits for a request.
    #[must_use]
    pub fn expect_request(mut self, method: &str) -> Self {
        self.line(&format!("<recv request=\"{method}\" rrs=\"true\"/>"))
    }

    /// Waits for a response.
    #[must_use]
    pub fn expect(mut self, status: u16) -> Self {
        self.line(&format!("<recv response=\"{status}\" rrs=\"true\"/>"))
    }

    /// Waits for a request whose body holds this line.
    #[must_use]
    pub fn expect_body(self, method: &str, line: &str) -> Self {
        self.expect_with_body(&format!("request=\"{method}\""), line)
    }

    /// Waits for a response whose body holds this line.
    #[must_use]
    pub fn expect_response_body(self, status: u16, line: &str) -> Self {
        self.expect_with_body(&format!("response=\"{status}\""), line)
    }

    fn expect_with_body(mut self, what: &str, line: &str) -> Self {
        self.line(&format!(
            "<recv {what} rrs=\"true\"><action><ereg regexp=\"{line}\" search_in=\"body\" \
             check_it=\"true\" assign_to=\"5\"/><log message=\"[$5]\"/></action></recv>"
        ))
    }

    /// Passes over a response that may come.
    #[must_use]
    pub fn may_get(mut self, status: u16) -> Self {
        self.line(&format!("<recv response=\"{status}\" optional=\"true\"/>"))
    }

    /// Plays a pcap to where the last SDP said.
    #[must_use]
    pub fn play(mut self, file: &Path) -> Self {
        let file = file.display();
        self.line(&format!(
            "<nop><action><exec play_pcap_audio=\"{file}\"/></action></nop>"
        ))
    }

    /// Waits.
    #[must_use]
    pub fn pause_ms(mut self, milliseconds: u32) -> Self {
        self.line(&format!("<pause milliseconds=\"{milliseconds}\"/>"))
    }

    /// The scenario file.
    #[must_use]
    pub fn xml(&self) -> String {
        let steps = &self.steps;
        format!(
            "<?xml version=\"1.0\" encoding=\"ISO-8859-1\" ?>\n<!DOCTYPE scenario SYSTEM \"sipp.dtd\">\n\
             <scenario name=\"{}\">\n{steps}</scenario>\n",
            self.user
        )
    }

    fn invite_branch(&self) -> String {
        format!("[branch-{}]", self.count - self.invite)
    }

    fn line(&mut self, step: &str) -> Self {
        self.count += 1;
        self.steps += step;
        self.steps.push('\n');
        self.clone()
    }

    fn send(&mut self, message: &str, repeated: bool) {
        let retrans = if repeated { " retrans=\"500\"" } else { "" };
        self.count += 1;
        // Writing to a String cannot fail.
        let _ = writeln!(self.steps, "<send{retrans}><![CDATA[\n{message}]]></send>");
    }
}
