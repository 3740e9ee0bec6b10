//! Where the demo runs: a folder of its own, and ports that nobody uses.

use anyhow::{Context, Result};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

/// Ports of an appliance's media range: three pairs a call, and room for those that others hold.
const MEDIA_PORTS: u16 = 400;
/// Where a free range is looked for: below the ports that the kernel gives out itself.
const MEDIA_FIRST: u16 = 16_384;
const MEDIA_LAST: u16 = 32_000;

/// A prepared place.
#[derive(Debug)]
pub(super) struct Place {
    /// The appliance that the calls go through.
    pub(super) relay: Site,
    /// The one that it records to, where it does.
    pub(super) recorder: Option<Site>,
    /// Where the calls are answered.
    pub(super) callee_port: u16,
}

/// An appliance's folder and ports.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) folder: PathBuf,
    pub(super) sip_port: u16,
    pub(super) http_port: u16,
}

impl Place {
    /// Finds folders and ports, and writes the configurations; of a recorder too `with_recorder`.
    pub(super) fn prepare(wanted: Option<&Path>, with_recorder: bool) -> Result<Self> {
        let folder = match wanted {
            Some(folder) => folder.to_owned(),
            None => new_folder()?,
        };
        let folder = std::path::absolute(&folder)?;
        let [sip_port, callee_port, recorder_port] = sip_ports()?;
        let media_first = free_media_ports(None)?;
        let mut routes =
            format!("[[route]]\nnext = \"sip:127.0.0.1:{callee_port}\"\nrecord = true\n");
        if with_recorder {
            routes += &format!(
                "recorders = [\"demo\"]\n\n[[recorder]]\nname = \"demo\"\n\
                 servers = [\"sip:127.0.0.1:{recorder_port};transport=tcp\"]\n"
            );
        }
        let [relay_http, recorder_http] = http_ports()?;
        let relay = Site::prepare(folder.clone(), [sip_port, relay_http, media_first], &routes)?;
        let recorder = if with_recorder {
            let ports = [
                recorder_port,
                recorder_http,
                free_media_ports(Some(media_first))?,
            ];
            let routes = "[[route]]\nnext = \"record\"\n";
            Some(Site::prepare(folder.join("recorder"), ports, routes)?)
        } else {
            None
        };
        Ok(Self {
            relay,
            recorder,
            callee_port,
        })
    }
}

impl Site {
    /// The configuration's name in the folder.
    pub(super) const CONFIG: &str = "trunkline.toml";

    fn prepare(folder: PathBuf, ports: [u16; 3], routes: &str) -> Result<Self> {
        let named = || folder.display().to_string();
        std::fs::create_dir_all(&folder).with_context(named)?;
        let [sip_port, http_port, media_first] = ports;
        let site = Self {
            folder,
            sip_port,
            http_port,
        };
        let config = site.folder.join(Self::CONFIG);
        std::fs::write(&config, site.config_text(media_first, routes))
            .with_context(|| config.display().to_string())?;
        Ok(site)
    }

    /// Folder of the files that the directory sink makes of recordings.
    pub(super) fn sounds(&self) -> PathBuf {
        self.folder.join("wav")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn config_text(&self, media_first: u16, routes: &str) -> String {
        let media_last = media_first + MEDIA_PORTS - 1;
        let sounds = self.sounds();
        let sounds = sounds.file_name().and_then(|name| name.to_str());
        let sounds = sounds.unwrap_or_default();
        let Self {
            sip_port,
            http_port,
            ..
        } = self;
        format!(
            r#"data_dir = "data"
drain_timeout_s = 1

[dataplane]
ports = "{media_first}-{media_last}"

[control]
http = "127.0.0.1:{http_port}"

[sip]
listen = ["udp:127.0.0.1:{sip_port}", "tcp:127.0.0.1:{sip_port}"]

{routes}
[[sink]]
kind = "directory"
path = "{sounds}"
template = "{{callee}}-{{recording}}"
"#
        )
    }
}

/// A folder beside the program's own (cargo's target folder), named by our process id; those of
/// processes that are gone are removed. Outside cargo: in the temporary folder.
fn new_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context("the own program cannot be found")?;
    let profile = own
        .parent()
        .filter(|folder| folder.ends_with("release") || folder.ends_with("debug"));
    let demos = match profile.and_then(Path::parent) {
        Some(target) => target.join("demo"),
        None => std::env::temp_dir().join("trunkline-demo"),
    };
    for entry in std::fs::read_dir(&demos).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix("run-"))
            .and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Somebody else's folder stays: that is no problem of ours.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(demos.join(format!("run-{}", std::process::id())))
}

/// Ports that are free for UDP and TCP.
fn sip_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = Vec::new();
    for _ in 0..100 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = udp.local_addr()?.port();
        if let Ok(tcp) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            ports.push(port);
            held.push((udp, tcp));
        }
        if let Ok(ports) = <[u16; N]>::try_from(ports.as_slice()) {
            return Ok(ports);
        }
    }
    anyhow::bail!("no free ports for SIP")
}

/// Two ports for APIs.
fn http_ports() -> Result<[u16; 2]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (one, two) = (listen()?, listen()?);
    Ok([one.local_addr()?.port(), two.local_addr()?.port()])
}

/// First port of a range in which every one can be bound now, but not of the range that begins at
/// `taken`.
fn free_media_ports(taken: Option<u16>) -> Result<u16> {
    let is_free = |port: u16| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let ranges = (MEDIA_LAST - MEDIA_FIRST) / MEDIA_PORTS;
    // Two demos at a time should not look at the same ranges in the same order.
    let offset = u16::try_from(std::process::id() % u32::from(ranges)).unwrap_or_default();
    (0..ranges)
        .map(|index| MEDIA_FIRST + (index + offset) % ranges * MEDIA_PORTS)
        .filter(|first| Some(*first) != taken)
        .find(|first| (*first..*first + MEDIA_PORTS).all(is_free))
        .context("no free ports for media")
}
