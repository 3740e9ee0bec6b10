//! Digits: told to whoever follows events, dialled by telephone-event packets (RFC 4733, the dataplane
//! reports them) or by INFO, and sent by INFO to a party that takes no telephone-event.

use trunkline_config::Dtmf;
use trunkline_link::message::Side;
use trunkline_sip::message::{Headers, MediaType, Method, Request};

use super::{B2bua, ClientUse, headers};
use crate::api::events::{EventKind, Subject};
use crate::call::{Call, Phase};
use crate::clock::Moment;

/// The keys of events 0 to 15.
const KEYS: &[u8; 16] = b"0123456789*#ABCD";

impl B2bua {
    /// A side dialled by telephone-event packets.
    pub(super) fn on_digit(
        &mut self,
        call: &mut Call,
        side: Side,
        event: u8,
        duration_ms: u32,
        now: &Moment,
    ) {
        let Some(key) = KEYS.get(usize::from(event)).copied().map(char::from) else {
            return;
        };
        self.tell_digit(call, side, key, now);
        let far = side.other();
        if call.phase == Phase::Answered && !call.negotiation.takes_digits(far) {
            self.send_digit(call, far, key, duration_ms, now);
        }
    }

    /// An INFO that may carry a digit; it is passed on whatever it carries.
    pub(super) fn note_info(&mut self, call: &Call, side: Side, request: &Request, now: &Moment) {
        if request.method == Method::Info
            && let Some(key) = digit_of(&request.headers, &request.body)
        {
            self.tell_digit(call, side, key, now);
        }
    }

    fn tell_digit(&mut self, call: &Call, side: Side, digit: char, now: &Moment) {
        let side = match side {
            Side::Caller => "caller",
            Side::Callee => "callee",
        };
        // That a key was pressed is told all the same.
        let masked = self.config.recording.dtmf == Dtmf::Mask;
        let digit = if masked { 'x' } else { digit };
        let call = &call.object;
        let subject = Subject::Dtmf { call, side, digit };
        self.events.publish(EventKind::Dtmf, now.utc, &subject);
    }

    fn send_digit(&mut self, call: &mut Call, to: Side, key: char, duration_ms: u32, now: &Moment) {
        let leg = call.leg_mut(to);
        if leg.over || !leg.acknowledged {
            return;
        }
        let info = leg
            .dialog
            .as_mut()
            .map(|dialog| dialog.request(Method::Info));
        let Some(Ok(mut info)) = info else {
            return;
        };
        let target = leg.target();
        info.headers.set("User-Agent", headers::SERVER);
        let body = format!("Signal={key}\r\nDuration={duration_ms}\r\n");
        info.set_body("application/dtmf-relay", body);
        if let Ok(client) = self.endpoint.send_request(now.instant, info, &target) {
            self.own_client(call, client, ClientUse::Digit(to));
        }
    }
}

/// The digit of an INFO: `Signal=5` of application/dtmf-relay, or the key alone of application/dtmf.
fn digit_of(headers: &Headers, body: &[u8]) -> Option<char> {
    let kind: MediaType = headers.content_type().ok().flatten()?;
    let text = std::str::from_utf8(body).ok()?;
    let key = if kind.is("application", "dtmf-relay") {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            name.trim().eq_ignore_ascii_case("signal").then_some(value)
        })?
    } else if kind.is("application", "dtmf") {
        text
    } else {
        return None;
    };
    let key = match key.trim() {
        "10" => '*',
        "11" => '#',
        key => {
            let mut chars = key.chars();
            let first = chars.next()?.to_ascii_uppercase();
            chars.next().is_none().then_some(first)?
        }
    };
    let byte = u8::try_from(key).ok()?;
    KEYS.contains(&byte).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, body: &str) -> Option<char> {
        let mut headers = Headers::new();
        headers.append("Content-Type", kind);
        digit_of(&headers, body.as_bytes())
    }

    #[test]
    fn digits_of_info_are_read_as_they_are_written_in_practice() {
        assert_eq!(
            read("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n"),
            Some('5')
        );
        assert_eq!(
            read("application/dtmf-relay", "Signal= #\nDuration= 250"),
            Some('#')
        );
        assert_eq!(read("application/dtmf-relay", "signal=11"), Some('#'));
        assert_eq!(read("application/dtmf", "d\r\n"), Some('D'));
        assert_eq!(read("application/dtmf", "55"), None);
        assert_eq!(read("application/dtmf", "x"), None);
        assert_eq!(read("application/dtmf-relay", "Duration=160"), None);
        assert_eq!(read("text/plain", "5"), None);
    }
}
