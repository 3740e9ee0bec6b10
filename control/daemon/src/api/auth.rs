//! The bearer token (RFC 6750).

use super::Shared;
use super::error::ApiError;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Lets a request pass when no token is configured or the right one is there.
pub(super) async fn check(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if let Some(token) = &shared.context.token {
        let given = request
            .headers()
            .get(AUTHORIZATION)
            .map(axum::http::HeaderValue::as_bytes);
        if !given
            .and_then(bearer_token)
            .is_some_and(|given| equal(given, token.as_bytes()))
        {
            return ApiError::unauthorized().into_response();
        }
    }
    next.run(request).await
}

fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

/// Compares in a time that depends on the given token's length only, so that nothing of the right
/// one can be learnt by measuring.
fn equal(given: &[u8], right: &[u8]) -> bool {
    let mut difference = given.len() ^ right.len();
    for (index, byte) in given.iter().enumerate() {
        let other = right[index % right.len().max(1)];
        difference |= usize::from(std::hint::black_box(byte ^ other));
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_is_equal() {
        assert!(equal(b"secret", b"secret"));
        for wrong in [&b""[..], b"secre", b"secrets", b"Secret", b"secretsecret"] {
            assert!(!equal(wrong, b"secret"));
        }
        assert_eq!(bearer_token(b"bearer  abc "), Some(&b"abc"[..]));
        assert_eq!(bearer_token(b"Basic abc"), None);
        assert_eq!(bearer_token(b"Bear"), None);
    }
}
