//! `kind = "object_store"`: a recording's files as objects in an S3 bucket, each confirmed.

use super::http::{causes, provide_tls, runtime};
use super::making::{Made, Making, name_of};
use super::{Place, failed, hours};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, ObjectStoreExt, PutPayload, RetryConfig,
};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use trunkline_config::{Confirm, FileFormat, Files, ObjectStoreSink};
use trunkline_hooks::{CallMeta, FinishError, RecordingArtifact, RecordingResult, RecordingSink};

/// Repetitions of one request within a delivery; the outbox repeats deliveries.
const RETRIES_MAX: usize = 2;
/// What is longer is no description of ours.
const DESCRIPTION_BYTES_MAX: u64 = 16 << 20;

pub(super) struct Store {
    place: Place,
    bucket: AmazonS3,
    bucket_name: String,
    files: Files,
    part_bytes: usize,
    confirm: Confirm,
    timeout: Duration,
    patience: Duration,
    parallel: usize,
    /// Taken only when it is dropped.
    runtime: Option<Runtime>,
}

impl Store {
    pub(super) fn new(settings: &ObjectStoreSink, place: Place) -> Result<Self, String> {
        provide_tls();
        let timeout = Duration::from_secs(settings.delivery.timeout_s.into());
        let mut client = ClientOptions::new()
            .with_timeout(timeout)
            .with_connect_timeout(timeout.min(Duration::from_secs(5)))
            .with_allow_http(true);
        if let Some(pem) = &settings.authorities {
            let certificates = Certificate::from_pem_bundle(pem.as_bytes());
            client = client.with_no_system_certificates(true);
            for certificate in certificates.map_err(|error| causes(&error))? {
                client = client.with_root_certificate(certificate);
            }
        }
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES_MAX,
            retry_timeout: timeout,
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_client_options(client)
            // Not everything that speaks S3 takes them.
            .with_disable_bulk_delete(true)
            .with_retry(retry);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        builder = match (&settings.access_key, &settings.secret_key) {
            (Some(key), Some(secret)) => builder
                .with_access_key_id(key)
                .with_secret_access_key(&secret.0),
            _ => builder.with_skip_signature(true),
        };
        Ok(Self {
            bucket: builder.build().map_err(|error| causes(&error))?,
            bucket_name: settings.bucket.clone(),
            files: settings.files.clone(),
            part_bytes: usize::try_from(settings.part_bytes).map_err(|error| error.to_string())?,
            confirm: settings.confirm,
            timeout,
            patience: hours(settings.delivery.give_up_after_h),
            parallel: settings.delivery.parallel as usize,
            runtime: Some(runtime()?),
            place,
        })
    }

    /// Makes, uploads and confirms all files of a recording.
    fn deliver(&self, mut making: Making<'_>) -> Result<RecordingResult, String> {
        let Some(runtime) = &self.runtime else {
            return Err("the sink has ended".to_owned());
        };
        if let Some(bytes) = runtime.block_on(self.found(&making)) {
            return Ok(self.result(making.name, bytes));
        }
        for format in making.formats(&self.files) {
            let (mut file, made) = self
                .make(&making, format)
                .map_err(|error| error.to_string())?;
            // This thread may wait for the disk: the runtime's own thread serves the sockets.
            runtime
                .block_on(self.upload(&mut file, &made))
                .map_err(|why| format!("{}: {why}", made.name))?;
            making.made.push(made);
        }
        let bytes = making.made.iter().map(|made| made.bytes).sum();
        Ok(self.result(making.name, bytes))
    }

    /// Deletes what an upload may have put here.
    fn take_back(&self, name: &str) -> Result<(), String> {
        let Some(runtime) = &self.runtime else {
            return Err("the sink has ended".to_owned());
        };
        for format in &self.files.formats {
            let name = format!("{name}.{}", format.extension());
            let key = Key::parse(&name).map_err(|error| error.to_string())?;
            let deleted = async {
                match self.bucket.delete(&key).await {
                    Err(object_store::Error::NotFound { .. }) => Ok(()),
                    other => other,
                }
            };
            let deleted = runtime.block_on(self.within(deleted));
            deleted.map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(())
    }

    fn result(&self, name: String, bytes: u64) -> RecordingResult {
        RecordingResult {
            url: Some(format!("s3://{}/{name}", self.bucket_name)),
            bytes: Some(bytes),
            object_key: Some(name),
        }
    }

    /// Bytes of what a process that could not note it any more, or forgot it with its catalog, has put
    /// here. The description goes up when all else is confirmed, so with it all is there.
    async fn found(&self, making: &Making<'_>) -> Option<u64> {
        let key = Key::parse(making.file_name(FileFormat::Json)).ok()?;
        let head = self.within(self.bucket.head(&key)).await.ok()?;
        if head.size == 0 || head.size > DESCRIPTION_BYTES_MAX {
            return None;
        }
        let description = self.within(self.bucket.get_range(&key, 0..head.size));
        let files = making.described(&description.await.ok()?)?;
        let mut sum = head.size;
        for (name, bytes) in files {
            let key = Key::parse(making.beside(&name)).ok()?;
            let found = self.within(self.bucket.head(&key)).await.ok()?;
            if found.size != bytes {
                return None;
            }
            sum += bytes;
        }
        Some(sum)
    }

    /// A file of a recording, without a name, to be read from its beginning.
    fn make(&self, making: &Making<'_>, format: FileFormat) -> io::Result<(File, Made)> {
        let scratch = &self.place.library.scratch;
        std::fs::create_dir_all(scratch)?;
        let mut file = tempfile::tempfile_in(scratch)?;
        let made = {
            let mut out = io::BufWriter::new(&mut file);
            let made = making.write(format, &mut out)?;
            out.flush()?;
            made
        };
        file.rewind()?;
        Ok((file, made))
    }

    async fn upload(&self, file: &mut File, made: &Made) -> Result<(), String> {
        let key = Key::parse(&made.name).map_err(|error| error.to_string())?;
        if made.bytes <= self.part_bytes as u64 {
            let part = read_part(file, self.part_bytes).map_err(|error| error.to_string())?;
            let put = self.bucket.put(&key, PutPayload::from(part));
            self.within(put).await?;
        } else {
            self.upload_parts(file, &key).await?;
        }
        self.confirm(&key, made).await
    }

    /// Part by part; what was begun and failed is taken back, as far as the store answers.
    async fn upload_parts(&self, file: &mut File, key: &Key) -> Result<(), String> {
        let mut upload = self.within(self.bucket.put_multipart(key)).await?;
        let sent = async {
            loop {
                let part = read_part(file, self.part_bytes).map_err(|error| error.to_string())?;
                if part.is_empty() {
                    break;
                }
                self.within(upload.put_part(PutPayload::from(part))).await?;
            }
            self.within(upload.complete()).await
        };
        match sent.await {
            Ok(_) => Ok(()),
            Err(why) => {
                if let Err(error) = self.within(upload.abort()).await {
                    tracing::warn!(sink = self.place.name, %key, error, "parts may be left behind");
                }
                Err(why)
            }
        }
    }

    /// Whether the store has what it said that it took.
    async fn confirm(&self, key: &Key, made: &Made) -> Result<(), String> {
        let stored = self.within(self.bucket.head(key)).await?;
        if stored.size != made.bytes {
            let (size, bytes) = (stored.size, made.bytes);
            return Err(format!("the store has {size} bytes instead of {bytes}"));
        }
        if self.confirm == Confirm::Size {
            return Ok(());
        }
        let mut hasher = Sha256::new();
        let mut at = 0;
        while at < made.bytes {
            let end = made.bytes.min(at + self.part_bytes as u64);
            let part = self.within(self.bucket.get_range(key, at..end)).await?;
            if part.len() as u64 != end - at {
                return Err("the store gives back less than it said that it has".to_owned());
            }
            hasher.update(&part);
            at = end;
        }
        if super::making::hex(&hasher.finalize()) != made.sha256 {
            return Err("the store gives back other bytes than it was given".to_owned());
        }
        Ok(())
    }

    /// One request with its repetitions: a store that hangs is waited for no longer.
    async fn within<T>(
        &self,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, String> {
        let timeout = self.timeout * (RETRIES_MAX as u32 + 1);
        match tokio::time::timeout(timeout, request).await {
            Ok(done) => done.map_err(|error| causes(&error)),
            Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
        }
    }
}

/// The next bytes of a file, less only at its end.
fn read_part(file: &mut File, bytes: usize) -> io::Result<Vec<u8>> {
    let mut part = Vec::new();
    file.take(bytes as u64).read_to_end(&mut part)?;
    Ok(part)
}

impl Drop for Store {
    fn drop(&mut self) {
        // It may be dropped where blocking is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl RecordingSink for Store {
    fn begin_recording(&self, _meta: &CallMeta, _sample_rate: u32, _codec: &str) -> bool {
        false
    }

    fn takes_pcm(&self) -> bool {
        false
    }

    fn reads_payload(&self) -> bool {
        false
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn parallel(&self) -> usize {
        self.parallel
    }

    fn finish_recording(
        &self,
        artifact: &RecordingArtifact,
        _deadline: Instant,
    ) -> Result<RecordingResult, FinishError> {
        let id = &artifact.recording;
        if let Some(entry) = self.place.entry(id)? {
            let making = Making::open(&self.place.library, &self.files, entry).map_err(failed)?;
            let delivered = self.deliver(making);
            if !self.place.library.is_gone(id).map_err(failed)? {
                return delivered.map_err(failed);
            }
        }
        // Whoever deleted it meanwhile was told that it does not get here any more.
        if let Some(deleted) = self.place.deleted(id)? {
            let name = name_of(&self.files, &deleted);
            self.take_back(&name).map_err(failed)?;
        }
        Ok(RecordingResult::default())
    }
}
