//! From text to [`Config`]: the top of the file and every table but `[[route]]`.

use crate::reader::{Default as Unbuilt, Item, Report, Section};
use crate::{
    Backend, Cdr, Config, ConfigError, ConfigErrors, Control, Cores, Dataplane, Dtmf, Idle,
    Interface, IpNet, Listen, PortRange, Recording, Sip, Transport, Writer, judge, recorder,
    retention, route, sink,
};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::de::DeTable;

/// Most workers, as in the dataplane's limits.
const WORKERS_MAX: usize = 64;
const CORE_MAX: u64 = 4095;

pub(crate) fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, &name),
        Err(error) => Err(ConfigErrors(vec![ConfigError {
            file: name,
            line: 0,
            key: String::new(),
            message: format!("cannot be read: {error}"),
        }])),
    }
}

pub(crate) fn parse(text: &str, name: &str) -> Result<Config, ConfigErrors> {
    let mut report = Report::new(name, text);
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    for error in &syntax_errors {
        let span = error.span().unwrap_or_default();
        // For a key given twice the span is the key; elsewhere it is whatever was not understood.
        let key = match error.message() {
            "duplicate key" => text.get(span.clone()).unwrap_or_default(),
            _ => "",
        };
        report.add(span.start, key, error.message());
    }
    if !syntax_errors.is_empty() {
        return report.finish().map(|()| Config::default());
    }
    let config = read(document.get_ref(), &mut report);
    report.finish()?;
    Ok(config)
}

/// Where the values stand that are judged against each other.
#[derive(Default)]
pub(crate) struct Places {
    /// `at` of each interface, in order, and the key to name.
    pub(crate) interfaces: Vec<(usize, String)>,
    /// `at` of each listener.
    pub(crate) listen: Vec<usize>,
    pub(crate) data_dir: usize,
    pub(crate) http: usize,
    pub(crate) calls_max: usize,
}

fn read(document: &DeTable<'_>, report: &mut Report<'_>) -> Config {
    let mut config = Config::default();
    let mut places = Places::default();
    let mut top = Section::new("", 0, document);
    if let Some(text) = top.take("data_dir").and_then(|item| item.string(report)) {
        if text.text.is_empty() {
            report.add(text.at, &text.key, "must not be empty");
        }
        places.data_dir = text.at;
        config.data_dir = PathBuf::from(text.text);
    }
    if let Some(seconds) = top
        .take("drain_timeout_s")
        .and_then(|item| item.integer_u32(report, 0, 86_400))
    {
        config.drain_timeout_s = seconds;
    }
    let shorthand = match subsection(&mut top, "dataplane", report) {
        Some(section) => read_dataplane(&mut config.dataplane, section, report),
        None => None,
    };
    read_interfaces(
        &mut config,
        &mut places,
        shorthand,
        top.take("interface").as_ref(),
        report,
    );
    if let Some(section) = subsection(&mut top, "control", report) {
        read_control(&mut config.control, &mut places, section, report);
    }
    if let Some(section) = subsection(&mut top, "sip", report) {
        read_sip(&mut config.sip, &mut places, section, report);
    }
    if let Some(section) = subsection(&mut top, "recording", report) {
        read_recording(&mut config.recording, section, report);
    }
    if let Some(section) = subsection(&mut top, "cdr", report) {
        read_cdr(&mut config.cdr, section, report);
    }
    if let Some(item) = top.take("recorder") {
        for section in item.tables(report) {
            read_recorder(&mut config, section, report);
        }
    }
    if let Some(item) = top.take("route") {
        for (index, section) in item.tables(report).into_iter().enumerate() {
            let route = route::read(section, index + 1, &config.recorders, report);
            config.routes.push(Arc::new(route));
        }
    }
    if let Some(item) = top.take("sink") {
        config.sinks = sink::read_all(&item, report);
    }
    if let Some(item) = top.take("retention") {
        config.retention = retention::read_all(&item, report);
    }
    top.unbuilt(report, &[("trunk", Unbuilt::Empty)]);
    top.finish(report);
    judge::judge(&config, &places, report);
    config
}

fn read_recorder(config: &mut Config, section: Section<'_>, report: &mut Report<'_>) {
    let (at, key) = (section.at, section.key("name"));
    let recorder = recorder::read(section, report);
    let known = |other: &Arc<crate::Recorder>| other.name == recorder.name;
    if !recorder.name.is_empty() && config.recorders.iter().any(known) {
        report.add(
            at,
            &key,
            format!("two recorders are named {:?}", recorder.name),
        );
    }
    if let Some(socket) = recorder.settings.socket
        && !config.sip.listen.contains(&socket)
    {
        let message = format!("{socket} is not among sip.listen");
        report.add(at, "recorder.socket", message);
    }
    config.recorders.push(Arc::new(recorder));
}

fn subsection<'t>(
    top: &mut Section<'t>,
    name: &str,
    report: &mut Report<'_>,
) -> Option<Section<'t>> {
    let item = top.take(name)?;
    Some(Section::new(name, item.at, item.table(report)?))
}

/// Gives the interface that the shorthand keys describe, if any of them is there.
fn read_dataplane(
    dataplane: &mut Dataplane,
    mut section: Section<'_>,
    report: &mut Report<'_>,
) -> Option<(usize, Interface)> {
    if let Some(text) = section.take("backend").and_then(|item| item.string(report)) {
        let backend = text.map(report, |name| match name {
            "uring" => Ok(Backend::Uring),
            "mmsg" => Ok(Backend::Mmsg),
            "xdp" | "dpdk" => Err(format!("{name:?}: not supported yet")),
            _ => Err(format!(
                "{name:?} is not one of \"uring\", \"mmsg\", \"xdp\", \"dpdk\""
            )),
        });
        dataplane.backend = backend.unwrap_or_default();
    }
    if let Some(item) = section.take("cores") {
        dataplane.cores = read_cores(&item, report);
    }
    if let Some(text) = section.take("idle").and_then(|item| item.string(report)) {
        let idle = text.map(report, |name| match name {
            "park" => Ok(Idle::Park),
            "spin" => Ok(Idle::Spin),
            _ => Err(format!("{name:?} is not one of \"park\", \"spin\"")),
        });
        dataplane.idle = idle.unwrap_or_default();
    }
    let at = section.at;
    let mut interface = Interface::default();
    let given = read_addresses(&mut interface, &mut section, report);
    section.finish(report);
    given.then_some((at, interface))
}

fn read_cores(item: &Item<'_>, report: &mut Report<'_>) -> Cores {
    if item.value.get_ref().as_str() == Some("auto") {
        return Cores::Auto;
    }
    let Some(entries) = item.value.get_ref().as_array() else {
        item.complain(report, "must be \"auto\" or a list of core numbers");
        return Cores::Auto;
    };
    let mut cores = Vec::new();
    for entry in entries.iter() {
        let entry = Item {
            key: item.key.clone(),
            at: entry.span().start,
            value: entry,
        };
        let Some(core) = entry
            .integer(report, 0, CORE_MAX)
            .and_then(|core| u16::try_from(core).ok())
        else {
            continue;
        };
        if cores.contains(&core) {
            entry.complain(report, format!("core {core} is named twice"));
        }
        cores.push(core);
    }
    if entries.is_empty() || entries.len() > WORKERS_MAX {
        item.complain(report, format!("must name 1 to {WORKERS_MAX} cores"));
    }
    Cores::Pinned(cores)
}

/// Reads `address`, `advertise` and `ports`; says whether any was given.
fn read_addresses(
    interface: &mut Interface,
    section: &mut Section<'_>,
    report: &mut Report<'_>,
) -> bool {
    let mut given = false;
    if let Some(text) = section.take("address").and_then(|item| item.string(report)) {
        given = true;
        interface.address = text.map(report, parse_address).unwrap_or(interface.address);
    }
    if let Some(text) = section
        .take("advertise")
        .and_then(|item| item.string(report))
    {
        given = true;
        if !text.text.is_empty() {
            interface.advertise = text.map(report, parse_address);
        }
    }
    if let Some(text) = section.take("ports").and_then(|item| item.string(report)) {
        given = true;
        interface.ports = text.map(report, parse_ports).unwrap_or(interface.ports);
    }
    given
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no IP address"))
}

fn parse_ports(text: &str) -> Result<PortRange, String> {
    let port = |digits: &str| digits.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let range = text
        .split_once('-')
        .and_then(|(first, last)| Some((port(first)?, port(last)?)));
    let Some((first, last)) = range else {
        return Err(format!(
            "{text:?} is no port range; write \"FIRST-LAST\", each 1 to 65535"
        ));
    };
    if first > last {
        return Err(format!("{text:?}: the first port is above the last"));
    }
    let range = PortRange { first, last };
    if range.pairs() < 2 {
        return Err(format!(
            "{text:?} has no room for a call: it takes two pairs of an even port and the next"
        ));
    }
    Ok(range)
}

fn read_interfaces(
    config: &mut Config,
    places: &mut Places,
    shorthand: Option<(usize, Interface)>,
    item: Option<&Item<'_>>,
    report: &mut Report<'_>,
) {
    let mut interfaces = Vec::new();
    if let Some((at, interface)) = shorthand {
        interfaces.push(interface);
        places.interfaces.push((at, "dataplane.address".to_owned()));
    }
    for mut section in item.map(|item| item.tables(report)).unwrap_or_default() {
        let mut interface = Interface::default();
        match section.take("name").and_then(|item| item.string(report)) {
            Some(text) if text.text.is_empty() => {
                report.add(text.at, &text.key, "must not be empty")
            }
            Some(text) => interface.name = text.text.to_owned(),
            None => {}
        }
        read_addresses(&mut interface, &mut section, report);
        interfaces.push(interface);
        places
            .interfaces
            .push((section.at, "interface.address".to_owned()));
        section.finish(report);
    }
    if interfaces.is_empty() {
        places.interfaces.push((0, "dataplane.address".to_owned()));
        return;
    }
    config.interfaces = interfaces;
}

fn read_control(
    control: &mut Control,
    places: &mut Places,
    mut section: Section<'_>,
    report: &mut Report<'_>,
) {
    places.http = section.at;
    if let Some(text) = section.take("http").and_then(|item| item.string(report)) {
        places.http = text.at;
        control.http = text
            .map(report, parse_socket_address)
            .unwrap_or(control.http);
    }
    let token = section
        .take("token")
        .and_then(|item| item.string(report))
        .filter(|text| !text.text.is_empty());
    let file = section
        .take("token_file")
        .and_then(|item| item.string(report))
        .filter(|text| !text.text.is_empty());
    control.token = match (token, file) {
        (Some(token), None) => token.map(report, check_token),
        (None, Some(file)) => file.map(report, |path| {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
            check_token(text.trim()).map_err(|why| format!("{path}: {why}"))
        }),
        (Some(_), Some(file)) => {
            report.add(
                file.at,
                &file.key,
                "give either token or token_file, not both",
            );
            None
        }
        (None, None) => None,
    };
    section.unbuilt(
        report,
        &[
            ("tls_certificate", Unbuilt::Empty),
            ("tls_key", Unbuilt::Empty),
        ],
    );
    section.finish(report);
}

/// A token must be one that a header can carry (RFC 6750 allows less; visible ASCII is enough here).
fn check_token(token: &str) -> Result<String, String> {
    if token.is_empty() {
        return Err("holds no token".to_owned());
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token is visible ASCII without spaces".to_owned());
    }
    Ok(token.to_owned())
}

fn parse_socket_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| format!("{text:?} is no ADDRESS:PORT (IPv6: \"[::1]:8080\")"))?;
    if address.port() == 0 {
        return Err(format!("{text:?}: port 0 cannot be listened on"));
    }
    Ok(address)
}

/// A listener as in `sip.listen`: `udp:ADDRESS:PORT`.
///
/// # Errors
/// It is none.
pub fn parse_listen(text: &str) -> Result<Listen, String> {
    let (transport, address) = text.split_once(':').ok_or_else(|| {
        format!("{text:?} is no listener; write \"udp:ADDRESS:PORT\" or \"tcp:ADDRESS:PORT\"")
    })?;
    let transport = match transport {
        "udp" => Transport::Udp,
        "tcp" => Transport::Tcp,
        "tls" | "ws" | "wss" => return Err(format!("{text:?}: {transport}: not supported yet")),
        _ => {
            return Err(format!(
                "{text:?}: unknown transport {transport:?}; write udp: or tcp:"
            ));
        }
    };
    Ok(Listen {
        transport,
        address: parse_socket_address(address)?,
    })
}

pub(crate) fn parse_net(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    text.parse()
        .map_err(|_| format!("{text:?} is neither an address nor ADDRESS/BITS"))
}

fn parse_nameserver(text: &str) -> Result<SocketAddr, String> {
    let plain = |_| Ok(SocketAddr::new(text.parse::<IpAddr>()?, 53));
    let parsed: Result<SocketAddr, std::net::AddrParseError> = text.parse().or_else(plain);
    parsed.map_err(|_| format!("{text:?} is neither ADDRESS nor ADDRESS:PORT"))
}

fn read_sip(sip: &mut Sip, places: &mut Places, mut section: Section<'_>, report: &mut Report<'_>) {
    if let Some(texts) = section.take("listen").and_then(|item| item.strings(report)) {
        sip.listen.clear();
        if texts.is_empty() {
            report.add(section.at, "sip.listen", "must name at least one listener");
        }
        for text in &texts {
            if let Some(listen) = text.map(report, parse_listen) {
                sip.listen.push(listen);
                places.listen.push(text.at);
            }
        }
    } else {
        places.listen = vec![section.at; sip.listen.len()];
    }
    if let Some(texts) = section.take("allow").and_then(|item| item.strings(report)) {
        sip.allow = texts
            .iter()
            .filter_map(|text| text.map(report, parse_net))
            .collect();
    }
    if let Some(nat) = section.take("nat").and_then(|item| item.boolean(report)) {
        sip.nat = nat;
    }
    if let Some(item) = section.take("calls_max") {
        places.calls_max = item.at;
        sip.calls_max = item.integer_u32(report, 1, 10_000_000);
    }
    if let Some(item) = section.take("calls_per_second_max") {
        sip.calls_per_second_max = item.integer_u32(report, 1, 10_000_000);
    }
    let limits = [
        ("source_calls_max", &mut sip.source_calls_max),
        (
            "source_calls_per_second_max",
            &mut sip.source_calls_per_second_max,
        ),
        ("ban_after", &mut sip.ban_after),
    ];
    for (key, limit) in limits {
        if let Some(item) = section.take(key) {
            *limit = item.integer_u32(report, 1, 10_000_000);
        }
    }
    for (key, seconds) in [
        ("ban_window_s", &mut sip.ban_window_s),
        ("ban_s", &mut sip.ban_s),
    ] {
        let item = section.take(key);
        if let Some(value) = item.and_then(|item| item.integer_u32(report, 1, 31_536_000)) {
            *seconds = value;
        }
    }
    if let Some(texts) = section
        .take("nameservers")
        .and_then(|item| item.strings(report))
    {
        let servers = texts.iter();
        sip.nameservers = servers
            .filter_map(|text| text.map(report, parse_nameserver))
            .collect();
    }
    if let Some(texts) = section
        .take("emergency")
        .and_then(|item| item.strings(report))
    {
        sip.emergency = texts.iter().map(|text| text.text.to_owned()).collect();
        for text in texts.iter().filter(|text| text.text.trim().is_empty()) {
            report.add(text.at, &text.key, "must not be empty");
        }
    }
    section.finish(report);
}

fn read_recording(recording: &mut Recording, mut section: Section<'_>, report: &mut Report<'_>) {
    const BLOCK: u64 = 4096;
    if let Some(text) = section.take("writer").and_then(|item| item.string(report)) {
        let read = text.map(report, |name| match name {
            "extent" => Ok(Writer::Extent),
            "mmap" => Ok(Writer::Mmap),
            _ => Err(format!("{name:?} is not one of \"extent\", \"mmap\"")),
        });
        recording.writer = read.unwrap_or_default();
    }
    if let Some(item) = section.take("segment_bytes")
        && let Some(bytes) = item.integer(report, 1 << 20, 1 << 36)
    {
        if !bytes.is_multiple_of(BLOCK) {
            item.complain(
                report,
                format!("must be a multiple of {BLOCK}, not {bytes}"),
            );
        }
        recording.segment_bytes = bytes;
    }
    if let Some(early) = section
        .take("early_media")
        .and_then(|item| item.boolean(report))
    {
        recording.early_media = early;
    }
    if let Some(chain) = section
        .take("hash_chain")
        .and_then(|item| item.boolean(report))
    {
        recording.hash_chain = chain;
    }
    if let Some(text) = section.take("dtmf").and_then(|item| item.string(report)) {
        let read = text.map(report, |name| match name {
            "keep" => Ok(Dtmf::Keep),
            "mask" => Ok(Dtmf::Mask),
            _ => Err(format!("{name:?} is not one of \"keep\", \"mask\"")),
        });
        recording.dtmf = read.unwrap_or_default();
    }
    recording.keep_days = section
        .take("keep_days")
        .and_then(|item| item.integer_u32(report, 1, 36_500));
    recording.quota_bytes = section
        .take("quota_bytes")
        .and_then(|item| item.integer(report, 1 << 20, 1 << 60));
    let mut file = |name: &str| {
        let text = section.take(name)?.string(report)?.text;
        (!text.is_empty()).then(|| PathBuf::from(text))
    };
    recording.key_file = file("key_file");
    recording.signing_key_file = file("signing_key_file");
    section.unbuilt(report, &[("journal_keep_h", Unbuilt::Absent)]);
    section.finish(report);
}

fn read_cdr(cdr: &mut Cdr, mut section: Section<'_>, report: &mut Report<'_>) {
    if let Some(text) = section.take("node").and_then(|item| item.string(report)) {
        if text.text.trim().is_empty() {
            report.add(text.at, &text.key, "must not be empty");
        }
        cdr.node = Some(text.text.to_owned());
    }
    if let Some(minutes) = section
        .take("interim_minutes")
        .and_then(|item| item.integer_u32(report, 0, 10_080))
    {
        cdr.interim_minutes = minutes;
    }
    if let Some(bytes) = section
        .take("rotate_bytes")
        .and_then(|item| item.integer(report, 1 << 16, 1 << 40))
    {
        cdr.rotate_bytes = bytes;
    }
    if let Some(hours) = section
        .take("rotate_hours")
        .and_then(|item| item.integer_u32(report, 0, 8_760))
    {
        cdr.rotate_hours = hours;
    }
    section.finish(report);
}
