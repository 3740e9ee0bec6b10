//! The API of a running appliance.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use trunkline_config::Config;

/// Where the appliance is.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Target {
    /// The appliance's configuration [default: ./trunkline.toml].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The API's address, instead of a configuration.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub(crate) url: Option<String>,
    /// A file that holds the API's token.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// A client of one appliance.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Client {
    pub(crate) fn of(target: &Target) -> Result<Self> {
        let (base, configured) = match (&target.url, &target.config) {
            (Some(url), _) => (url.trim_end_matches('/').to_owned(), None),
            (None, Some(path)) => address_of(&Config::load(path)?),
            (None, None) => match crate::default_config() {
                path if path.exists() => address_of(&Config::load(&path)?),
                _ => address_of(&Config::default()),
            },
        };
        let token = match &target.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("{}", path.display()))?;
                Some(text.trim().to_owned())
            }
            None => configured,
        };
        Ok(Self::new(base, token))
    }

    pub(crate) fn new(base: String, token: Option<String>) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .build()
            .into();
        Self { base, token, agent }
    }

    /// Sends a request; gives status and body.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Vec<u8>)> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let request = request
            .body(bytes)
            .with_context(|| format!("{} is no URL", self.base))?;
        let mut response = match self.agent.run(request) {
            Ok(response) => response,
            Err(error) => bail!("no appliance answers at {}: {error}", self.base),
        };
        let mut bytes = Vec::new();
        let status = response.status().as_u16();
        response
            .body_mut()
            .as_reader()
            .read_to_end(&mut bytes)
            .context("the answer broke off")?;
        Ok((status, bytes))
    }

    /// Sends a request that should succeed with JSON; the API's own error message otherwise.
    pub(crate) fn json(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, bytes) = self.ask(method, path, body)?;
        let answer: Value = serde_json::from_slice(&bytes).with_context(|| {
            format!(
                "{} answers {status}, and not as an appliance does",
                self.base
            )
        })?;
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let message = answer["error"]["message"]
            .as_str()
            .unwrap_or("no reason given");
        bail!("{message} (HTTP {status})")
    }

    /// The one recording that a query finds, once it is finished.
    pub(crate) fn finished_recording(&self, query: &str, deadline: Instant) -> Result<Value> {
        let path = format!("/v1/recordings?{query}");
        loop {
            let list = self.json("GET", &path, None)?;
            let items = list["items"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            match items {
                [one]
                    if matches!(
                        one["state"].as_str(),
                        Some("complete" | "partial" | "failed")
                    ) =>
                {
                    return Ok(one.clone());
                }
                [_, _, ..] => bail!("{} recordings instead of one", items.len()),
                _ if Instant::now() >= deadline => {
                    let state = items
                        .first()
                        .map_or("none", |one| one["state"].as_str().unwrap_or("?"));
                    bail!("no finished recording (state: {state})");
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Gets bytes that should be there.
    pub(crate) fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let (status, bytes) = self.ask("GET", path, None)?;
        if status != 200 {
            bail!(
                "GET {path}: HTTP {status}: {}",
                String::from_utf8_lossy(&bytes)
            );
        }
        Ok(bytes)
    }
}

fn address_of(config: &Config) -> (String, Option<String>) {
    (
        format!("http://{}", config.control.http),
        config.control.token.clone(),
    )
}

/// Makes a text safe within a URL (RFC 3986: everything but unreserved characters is escaped).
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #[test]
    fn everything_but_unreserved_is_escaped() {
        assert_eq!(super::escape("+49 a/b~c%"), "%2B49%20a%2Fb~c%25");
        assert_eq!(super::escape("\u{e9}"), "%C3%A9");
    }
}
