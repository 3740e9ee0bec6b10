//! `[[sink]]`: where finished recordings, and the sound of running ones, go.

use crate::reader::{Item, Report, Section};
use crate::template::NameTemplate;
use std::fmt;
use std::path::{Path, PathBuf};

/// Sinks at most.
const SINKS_MAX: usize = 32;
/// S3 takes no smaller parts but the last.
const PART_BYTES_MIN: u64 = 5 << 20;

/// Something that nobody may read in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(set)")
    }
}

/// One `[[sink]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    /// Its name, under which what it has not got yet is kept over restarts; the kind's by default.
    pub name: String,
    /// Only this tenant's recordings; `None` = all.
    pub tenant: Option<String>,
    /// What kind of sink, with its own keys.
    pub kind: SinkKind,
}

/// Kinds of sinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkKind {
    /// Files in a directory.
    Directory(DirectorySink),
    /// Objects in an S3 bucket.
    ObjectStore(ObjectStoreSink),
    /// A signed request for each finished recording.
    Webhook(WebhookSink),
    /// The sound of running recordings.
    Pcm(PcmSink),
}

impl SinkKind {
    /// Its word in the configuration.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Directory(_) => "directory",
            Self::ObjectStore(_) => "object_store",
            Self::Webhook(_) => "webhook",
            Self::Pcm(_) => "pcm",
        }
    }
}

/// What is made of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileFormat {
    /// The call's SN3.
    Sn3,
    /// Stereo WAV.
    Wav,
    /// The evidence archive.
    Evidence,
    /// The entry, its call, its call detail records, and the other files' hashes.
    Json,
}

impl FileFormat {
    /// All of them, in the order in which they are made: what the others are told of comes last.
    pub const ALL: [Self; 4] = [Self::Sn3, Self::Wav, Self::Evidence, Self::Json];

    /// Its word in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sn3 => "sn3",
            Self::Wav => "wav",
            Self::Evidence => "evidence",
            Self::Json => "json",
        }
    }

    /// What its file's name ends with.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Evidence => "evidence.tar",
            other => other.name(),
        }
    }

    const DEFAULT: [Self; 3] = [Self::Sn3, Self::Wav, Self::Json];
}

/// What is made of a recording, and under which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The name without extension.
    pub template: NameTemplate,
    /// In the order of [`FileFormat::ALL`], each once.
    pub formats: Vec<FileFormat>,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            template: NameTemplate::default(),
            formats: FileFormat::DEFAULT.to_vec(),
        }
    }
}

/// How deliveries over a network are made and repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// How long one request may take, s.
    pub timeout_s: u32,
    /// For how long a delivery that failed is repeated, h.
    pub give_up_after_h: u32,
    /// Deliveries at once.
    pub parallel: u32,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            timeout_s: 10,
            give_up_after_h: 72,
            parallel: 4,
        }
    }
}

/// `kind = "directory"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectorySink {
    /// The directory; made when it is missing.
    pub path: PathBuf,
    /// What is put there.
    pub files: Files,
    /// Whether deleting a recording deletes its files here.
    pub delete: bool,
    /// For how long a delivery that failed is repeated, h.
    pub give_up_after_h: u32,
}

/// How an object is confirmed once it was uploaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Confirm {
    /// It is read back and compared.
    #[default]
    Content,
    /// Its size is asked for and compared.
    Size,
}

/// `kind = "object_store"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStoreSink {
    /// Certificates (PEM) of the authorities that alone are believed; `None` = the system's.
    pub authorities: Option<String>,
    /// The bucket.
    pub bucket: String,
    /// URL of a server that speaks S3; `None` = AWS.
    pub endpoint: Option<String>,
    /// Region.
    pub region: String,
    /// Access key; `None` = requests are not signed.
    pub access_key: Option<String>,
    /// Its secret.
    pub secret_key: Option<Secret>,
    /// What is put there.
    pub files: Files,
    /// Larger objects go up in parts of this size.
    pub part_bytes: u64,
    /// How an object is confirmed.
    pub confirm: Confirm,
    /// How it is delivered.
    pub delivery: Delivery,
}

/// `kind = "webhook"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSink {
    /// Where to. Its path or query may be a secret of the receiver's.
    pub url: Secret,
    /// As in [`ObjectStoreSink::authorities`].
    pub authorities: Option<String>,
    /// Signs requests (HMAC-SHA256); `None` = not signed.
    pub secret: Option<Secret>,
    /// How it is delivered.
    pub delivery: Delivery,
}

/// One side of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PcmChannel {
    /// The caller.
    Caller,
    /// Whoever talks to the caller.
    Callee,
}

/// Where a live tap connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PcmTarget {
    /// A WebSocket URL. Its path or query may be a secret of the receiver's.
    WebSocket(Secret),
    /// A Unix socket.
    Unix(PathBuf),
}

/// `kind = "pcm"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcmSink {
    /// As in [`ObjectStoreSink::authorities`].
    pub authorities: Option<String>,
    /// Where each channel of each recording makes a connection to.
    pub target: PcmTarget,
    /// The channels.
    pub channels: Vec<PcmChannel>,
}

/// Reads all `[[sink]]`.
pub(crate) fn read_all(item: &Item<'_>, report: &mut Report<'_>) -> Vec<Sink> {
    let mut sinks = Vec::<Sink>::new();
    for section in item.tables(report) {
        let at = section.at;
        if let Some(sink) = read(section, report) {
            if sinks.iter().any(|other| other.name == sink.name) {
                let message = format!("a sink named {:?} is there already", sink.name);
                report.add(at, "sink.name", message);
            }
            sinks.push(sink);
        }
    }
    if sinks.len() > SINKS_MAX {
        item.complain(report, format!("at most {SINKS_MAX} sinks"));
    }
    sinks
}

fn read(mut section: Section<'_>, report: &mut Report<'_>) -> Option<Sink> {
    let name = section.take("name").and_then(|item| item.string(report));
    let name = name.and_then(|text| text.map(report, check_name));
    let tenant = text(&mut section, "tenant", report);
    let Some(kind) = section.take("kind") else {
        let kinds = "directory, object_store, webhook or pcm";
        report.add(section.at, "sink.kind", format!("must be one of {kinds}"));
        return None;
    };
    let kind = kind.string(report)?;
    let read = match kind.text {
        "directory" => read_directory(&mut section, report).map(SinkKind::Directory),
        "object_store" => read_object_store(&mut section, report).map(SinkKind::ObjectStore),
        "webhook" => read_webhook(&mut section, report).map(SinkKind::Webhook),
        "pcm" => read_pcm(&mut section, report).map(SinkKind::Pcm),
        other => {
            let message = format!(
                "{other:?} is not one of \"directory\", \"object_store\", \"webhook\", \"pcm\""
            );
            report.add(kind.at, &kind.key, message);
            return None;
        }
    };
    section.finish(report);
    Some(Sink {
        name: name.unwrap_or_else(|| kind.text.to_owned()),
        tenant,
        kind: read?,
    })
}

/// A text that must not be empty.
fn text(section: &mut Section<'_>, name: &str, report: &mut Report<'_>) -> Option<String> {
    let text = section.take(name)?.string(report)?;
    if text.text.is_empty() {
        report.add(text.at, &text.key, "must not be empty");
        return None;
    }
    Some(text.text.to_owned())
}

/// A text that must be there.
fn required(section: &mut Section<'_>, name: &str, report: &mut Report<'_>) -> Option<String> {
    if section.take(name).is_none() {
        report.add(section.at, &section.key(name), "is missing");
        return None;
    }
    text(section, name, report)
}

/// A secret from a file that holds nothing else.
fn secret(section: &mut Section<'_>, name: &str, report: &mut Report<'_>) -> Option<Secret> {
    let file = section.take(name)?.string(report)?;
    file.map(report, |path| {
        let text = std::fs::read_to_string(Path::new(path));
        let text = text.map_err(|error| format!("{path}: {error}"))?;
        match text.trim() {
            "" => Err(format!("{path}: holds no secret")),
            secret => Ok(Secret(secret.to_owned())),
        }
    })
}

/// Certificates of authorities from a PEM file; without TLS they would be of no use.
fn authorities(
    section: &mut Section<'_>,
    url: Option<&str>,
    report: &mut Report<'_>,
) -> Option<String> {
    let file = section.take("ca_file")?.string(report)?;
    if url.is_some_and(|url| !url.starts_with("https://") && !url.starts_with("wss://")) {
        let message = "is of no use: the URL is not one of https:// or wss://";
        report.add(file.at, &file.key, message);
        return None;
    }
    file.map(report, |path| {
        let text = std::fs::read_to_string(Path::new(path));
        let text = text.map_err(|error| format!("{path}: {error}"))?;
        match text.contains("-----BEGIN CERTIFICATE-----") {
            true => Ok(text),
            false => Err(format!("{path}: holds no certificate in PEM")),
        }
    })
}

fn read_files(section: &mut Section<'_>, report: &mut Report<'_>) -> Files {
    let mut files = Files::default();
    if let Some(text) = section
        .take("template")
        .and_then(|item| item.string(report))
    {
        let template = text.map(report, NameTemplate::parse);
        files.template = template.unwrap_or_default();
    }
    if let Some(item) = section.take("formats")
        && let Some(texts) = item.strings(report)
    {
        let find = |text: &str| {
            let known = FileFormat::ALL.iter().find(|one| one.name() == text);
            known.copied().ok_or_else(|| {
                format!("{text:?} is not one of \"sn3\", \"wav\", \"evidence\", \"json\"")
            })
        };
        files.formats = texts
            .iter()
            .filter_map(|text| text.map(report, find))
            .collect();
        files.formats.sort_unstable();
        files.formats.dedup();
        if texts.is_empty() {
            item.complain(report, "must name at least one");
        }
    }
    files
}

fn read_delivery(section: &mut Section<'_>, report: &mut Report<'_>) -> Delivery {
    let mut delivery = Delivery::default();
    if let Some(item) = section.take("timeout_s") {
        delivery.timeout_s = item.integer_u32(report, 1, 3600).unwrap_or_default();
    }
    if let Some(item) = section.take("parallel") {
        delivery.parallel = item.integer_u32(report, 1, 64).unwrap_or_default();
    }
    delivery.give_up_after_h = read_give_up(section, report);
    delivery
}

fn read_give_up(section: &mut Section<'_>, report: &mut Report<'_>) -> u32 {
    let item = section.take("give_up_after_h");
    let hours = item.and_then(|item| item.integer_u32(report, 0, 8760));
    hours.unwrap_or(Delivery::default().give_up_after_h)
}

fn read_directory(section: &mut Section<'_>, report: &mut Report<'_>) -> Option<DirectorySink> {
    let files = read_files(section, report);
    let give_up_after_h = read_give_up(section, report);
    let delete = section
        .take("delete")
        .and_then(|item| item.boolean(report))
        .unwrap_or(true);
    Some(DirectorySink {
        path: required(section, "path", report)?.into(),
        files,
        delete,
        give_up_after_h,
    })
}

fn read_object_store(
    section: &mut Section<'_>,
    report: &mut Report<'_>,
) -> Option<ObjectStoreSink> {
    let files = read_files(section, report);
    let mut delivery = read_delivery(section, report);
    if section.take("timeout_s").is_none() {
        // A part may be large and the way to the store narrow.
        delivery.timeout_s = 60;
    }
    let endpoint = url(section, "endpoint", &["http", "https"], report);
    let region = text(section, "region", report).unwrap_or_else(|| "us-east-1".to_owned());
    let access_key = text(section, "access_key", report);
    let secret_key = secret(section, "secret_key_file", report);
    if access_key.is_some() != secret_key.is_some() {
        let message = "access_key and secret_key_file belong together";
        report.add(section.at, &section.key("access_key"), message);
    }
    let part_bytes = section
        .take("part_bytes")
        .and_then(|item| item.integer(report, PART_BYTES_MIN, 1 << 30))
        .unwrap_or(8 << 20);
    let confirm = section
        .take("confirm")
        .and_then(|item| item.string(report))
        .and_then(|text| {
            text.map(report, |word| match word {
                "content" => Ok(Confirm::Content),
                "size" => Ok(Confirm::Size),
                _ => Err(format!("{word:?} is not one of \"content\", \"size\"")),
            })
        });
    Some(ObjectStoreSink {
        authorities: authorities(section, endpoint.as_deref(), report),
        bucket: required(section, "bucket", report)?,
        endpoint,
        region,
        access_key,
        secret_key,
        files,
        part_bytes,
        confirm: confirm.unwrap_or_default(),
        delivery,
    })
}

fn read_webhook(section: &mut Section<'_>, report: &mut Report<'_>) -> Option<WebhookSink> {
    let delivery = read_delivery(section, report);
    let secret = secret(section, "secret_file", report);
    required(section, "url", report)?;
    let url = url(section, "url", &["http", "https"], report)?;
    Some(WebhookSink {
        authorities: authorities(section, Some(&url), report),
        url: Secret(url),
        secret,
        delivery,
    })
}

fn read_pcm(section: &mut Section<'_>, report: &mut Report<'_>) -> Option<PcmSink> {
    let given = section.take("url").is_some();
    let url = url(section, "url", &["ws", "wss"], report);
    let socket = text(section, "socket", report);
    let mut channels = vec![PcmChannel::Caller, PcmChannel::Callee];
    if let Some(item) = section.take("channels")
        && let Some(texts) = item.strings(report)
    {
        let find = |word: &str| match word {
            "caller" => Ok(PcmChannel::Caller),
            "callee" => Ok(PcmChannel::Callee),
            _ => Err(format!("{word:?} is not one of \"caller\", \"callee\"")),
        };
        channels = texts
            .iter()
            .filter_map(|text| text.map(report, find))
            .collect();
        channels.dedup();
        if texts.is_empty() {
            item.complain(report, "must name at least one");
        }
    }
    let authorities = authorities(section, Some(url.as_deref().unwrap_or_default()), report);
    let target = match (url, socket) {
        (Some(url), None) => PcmTarget::WebSocket(Secret(url)),
        (None, Some(path)) if !given => PcmTarget::Unix(path.into()),
        (None, None) if given => return None,
        _ => {
            let message = "give either url (ws://, wss://) or socket (a path)";
            report.add(section.at, &section.key("url"), message);
            return None;
        }
    };
    Some(PcmSink {
        authorities,
        target,
        channels,
    })
}

/// A name is also that of a folder, and stands in metrics.
fn check_name(name: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    match !name.is_empty() && name.len() <= 64 && name.bytes().all(plain) {
        true => Ok(name.to_owned()),
        false => Err("must be 1 to 64 letters, digits, - or _".to_owned()),
    }
}

fn url(
    section: &mut Section<'_>,
    name: &str,
    schemes: &[&str],
    report: &mut Report<'_>,
) -> Option<String> {
    let text = section.take(name)?.string(report)?;
    text.map(report, |url| check_url(url, schemes))
}

/// Of a URL only that is judged which a typing error would break: scheme, and a host behind it.
fn check_url(url: &str, schemes: &[&str]) -> Result<String, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let visible = url.bytes().all(|byte| byte.is_ascii_graphic());
    if !schemes.contains(&scheme) || host.is_empty() || !visible {
        return Err(format!("{url:?} is no {}:// URL", schemes.join(":// or ")));
    }
    Ok(url.to_owned())
}
