//! HTTP for sinks: a client with timeouts and without redirects, on a runtime of the sink's own.

use std::error::Error;
use std::future::Future;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Http {
    client: reqwest::Client,
    timeout: Duration,
    /// Taken only when it is dropped.
    runtime: Option<Runtime>,
}

/// A runtime for one sink: its thread serves the sockets, the sink's own threads do the rest.
pub(super) fn runtime() -> Result<Runtime, String> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("sink-io")
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
}

/// TLS needs a provider of cryptography, one for the process.
pub(super) fn provide_tls() {
    // Another part of the process may have been faster, with the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// An error with what caused it: a client's own words often are only that it failed.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

impl Http {
    /// `authorities`: certificates (PEM) of those that alone are believed; `None` = the system's.
    pub(super) fn new(timeout_s: u32, authorities: Option<&str>) -> Result<Self, String> {
        provide_tls();
        let timeout = Duration::from_secs(timeout_s.into());
        let mut builder = reqwest::Client::builder();
        if let Some(pem) = authorities {
            let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
            let certificates = certificates.map_err(|error| causes(&error))?;
            builder = builder.tls_certs_only(certificates);
        }
        let client = builder
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("trunkline/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| causes(&error))?;
        Ok(Self {
            client,
            timeout,
            runtime: Some(runtime()?),
        })
    }

    pub(super) const fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Runs an exchange on this thread, within the timeout.
    pub(super) fn run<T>(&self, exchange: impl Future<Output = T>) -> Result<T, String> {
        let Some(runtime) = &self.runtime else {
            return Err("the sink has ended".to_owned());
        };
        // The client's own timeout comes first; this one is for what it does not count.
        let timeout = self.timeout + Duration::from_secs(1);
        runtime
            .block_on(async { tokio::time::timeout(timeout, exchange).await })
            .map_err(|_| format!("no answer within {} s", self.timeout.as_secs()))
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        // It may be dropped where blocking is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
