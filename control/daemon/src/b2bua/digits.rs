//! Digits: told to whoever follows events, dialled by telephone-event packets (RFC 4733, the dataplane
//! reports them) or by INFO. A party that takes no telephone-event gets them by INFO, one that takes no
//! INFO by telephone-event packets, which the dataplane puts into the stream that it hears.

use trunkline_config::Dtmf;
use trunkline_link::message::{Command, DigitSend, Side};
use trunkline_sip::message::{Headers, MediaType, Method, Request};

use super::{B2bua, ClientUse, headers};
use crate::api::events::{EventKind, Subject};
use crate::call::{Call, Phase};
use crate::clock::Moment;

/// How long a digit lasts that does not say so, and the least and most that it may say.
const DIGIT_MS: u16 = 160;
const DIGIT_MS_MIN: u16 = 40;
const DIGIT_MS_MAX: u16 = 6_000;
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

    /// An INFO that may carry a digit, which is told; gives it.
    pub(super) fn note_info(
        &mut self,
        call: &Call,
        side: Side,
        request: &Request,
        now: &Moment,
    ) -> Option<Dialled> {
        let dialled = Dialled::of(request)?;
        self.tell_digit(call, side, dialled.key, now);
        Some(dialled)
    }

    /// Dials a side's digit by telephone-event packets where the other takes those, and is known not to
    /// take INFO. False when it is to be passed on.
    pub(super) fn dial_instead(&mut self, call: &Call, side: Side, digit: Dialled) -> bool {
        let far = side.other();
        let ready = call.phase == Phase::Answered && !call.leg(far).takes_info;
        ready && self.dial(call, far, digit)
    }

    /// A passed INFO was refused: if it was a digit, and the refusal speaks of the method or of the body,
    /// it is dialled, and so are those that follow. False when the refusal is to be passed back.
    pub(super) fn dial_refused(
        &mut self,
        call: &mut Call,
        side: Side,
        request: &Request,
        status: u16,
    ) -> bool {
        let Some(digit) = Dialled::of(request).filter(|_| matches!(status, 405 | 415 | 469 | 501))
        else {
            return false;
        };
        let dialled = call.phase == Phase::Answered && self.dial(call, side.other(), digit);
        if dialled {
            call.leg_mut(side.other()).takes_info = false;
        }
        dialled
    }

    fn dial(&mut self, call: &Call, to: Side, digit: Dialled) -> bool {
        let Some(events) = call.negotiation.events_of(to) else {
            return false;
        };
        self.command(Command::DigitSend(DigitSend {
            session: call.key,
            media: events.media,
            to,
            pt: events.pt,
            clock_hz: events.clock_hz,
            event: digit.event,
            duration_ms: digit.duration_ms,
            ssrc: rand::random(),
        }));
        true
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

/// A digit of an INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialled {
    key: char,
    event: u8,
    duration_ms: u16,
}

impl Dialled {
    /// `Signal=5` and `Duration=160` of application/dtmf-relay, or the key alone of application/dtmf.
    fn of(request: &Request) -> Option<Self> {
        if request.method != Method::Info {
            return None;
        }
        Self::read(&request.headers, &request.body)
    }

    fn read(headers: &Headers, body: &[u8]) -> Option<Self> {
        let kind: MediaType = headers.content_type().ok().flatten()?;
        let text = std::str::from_utf8(body).ok()?;
        let value = |wanted: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                let named = name.trim().eq_ignore_ascii_case(wanted);
                named.then_some(value.trim())
            })
        };
        let relay = kind.is("application", "dtmf-relay");
        let key = match relay {
            true => value("signal")?,
            false if kind.is("application", "dtmf") => text.trim(),
            false => return None,
        };
        let duration_ms = value("duration").filter(|_| relay);
        let duration_ms = duration_ms.and_then(|text| text.parse::<u16>().ok());
        let key = match key {
            "10" => '*',
            "11" => '#',
            key => {
                let mut chars = key.chars();
                let first = chars.next()?.to_ascii_uppercase();
                chars.next().is_none().then_some(first)?
            }
        };
        let event = KEYS.iter().position(|known| char::from(*known) == key)?;
        Some(Self {
            key,
            event: u8::try_from(event).ok()?,
            duration_ms: duration_ms
                .filter(|ms| *ms > 0)
                .unwrap_or(DIGIT_MS)
                .clamp(DIGIT_MS_MIN, DIGIT_MS_MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, body: &str) -> Option<char> {
        let mut headers = Headers::new();
        headers.append("Content-Type", kind);
        Dialled::read(&headers, body.as_bytes()).map(|digit| digit.key)
    }

    #[test]
    fn a_digit_lasts_as_said_within_reason() {
        let lasts = |body: &str| {
            let mut headers = Headers::new();
            headers.append("Content-Type", "application/dtmf-relay");
            Dialled::read(&headers, body.as_bytes()).map(|digit| (digit.event, digit.duration_ms))
        };
        assert_eq!(lasts("Signal=5\r\nDuration=250\r\n"), Some((5, 250)));
        assert_eq!(lasts("Signal=*"), Some((10, DIGIT_MS)));
        assert_eq!(lasts("Signal=#\nDuration=0"), Some((11, DIGIT_MS)));
        assert_eq!(lasts("Signal=A\nDuration=1"), Some((12, DIGIT_MS_MIN)));
        assert_eq!(lasts("Signal=1\nDuration=60000"), Some((1, DIGIT_MS_MAX)));
        assert_eq!(lasts("Signal=1\nDuration=never"), Some((1, DIGIT_MS)));
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
