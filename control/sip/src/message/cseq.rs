//! CSeq (RFC 3261 section 20.16) and RAck (RFC 3262 section 7.2).

use std::fmt;

use super::error::HeaderError;
use super::method::Method;
use super::text::is_token;

/// The largest sequence number (RFC 3261 section 8.1.1.5: less than 2^31).
pub const CSEQ_MAX: u32 = (1 << 31) - 1;

/// A command sequence: number and method.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CSeq {
    pub number: u32,
    pub method: Method,
}

impl CSeq {
    /// Parses `number SP method`.
    ///
    /// # Errors
    /// A number that is none or too large, a method that is no token.
    pub fn parse(text: &str) -> Result<CSeq, HeaderError> {
        let mut words = text.split_ascii_whitespace();
        let number = number(words.next().unwrap_or(""), CSEQ_MAX)
            .ok_or(HeaderError::new("CSeq", "bad number"))?;
        let method = words.next().filter(|word| is_token(word));
        match (method, words.next()) {
            (Some(method), None) => Ok(CSeq {
                number,
                method: Method::from(method),
            }),
            _ => Err(HeaderError::new("CSeq", "bad method")),
        }
    }
}

impl fmt::Display for CSeq {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.number, self.method)
    }
}

/// What a PRACK acknowledges: the provisional's RSeq and the CSeq of its request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RAck {
    pub rseq: u32,
    pub cseq: CSeq,
}

impl RAck {
    /// Parses `rseq SP number SP method`.
    ///
    /// # Errors
    /// As for CSeq.
    pub fn parse(text: &str) -> Result<RAck, HeaderError> {
        let error = || HeaderError::new("RAck", "bad value");
        let text = text.trim_start();
        let (rseq, cseq) = text.split_once([' ', '\t']).ok_or_else(error)?;
        let rseq = number(rseq, u32::MAX).ok_or_else(error)?;
        Ok(RAck {
            rseq,
            cseq: CSeq::parse(cseq).map_err(|_| error())?,
        })
    }
}

impl fmt::Display for RAck {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.rseq, self.cseq)
    }
}

/// A plain decimal number up to `max`; no sign, no blank.
pub(crate) fn number(text: &str, max: u32) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain
        .then(|| text.parse::<u32>().ok())
        .flatten()
        .filter(|number| *number <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_methods() {
        assert_eq!(
            CSeq::parse("0009\t INVITE").unwrap().to_string(),
            "9 INVITE"
        );
        assert_eq!(
            CSeq::parse("1 NEWMETHOD").unwrap().method,
            Method::Other("NEWMETHOD".into())
        );
        for text in [
            "",
            "1",
            "INVITE 1",
            "-1 INVITE",
            "36893488147419103232 REGISTER",
            "2147483648 INVITE",
            "1 INVITE x",
            "1 IN@VITE",
        ] {
            assert!(CSeq::parse(text).is_err(), "{text}");
        }
        assert_eq!(RAck::parse("776656 1 INVITE").unwrap().rseq, 776656);
        assert!(RAck::parse("1 INVITE").is_err());
    }
}
