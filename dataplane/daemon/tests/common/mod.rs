//! A real dataplane process, a control at its link, and RTP parties on loopback.
#![allow(dead_code)]

use std::collections::VecDeque;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use trunkline_link::attach::ControlLink;
use trunkline_link::message::*;

/// Nothing here takes this long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A dataplane process in a directory of its own.
pub struct Dataplane {
    child: Child,
    pub directory: tempfile::TempDir,
    pub address: IpAddr,
}

pub fn binary() -> Process {
    Process::new(env!("CARGO_BIN_EXE_trunkline-dataplane"))
}

impl Dataplane {
    /// Starts one whose media address is this process's and this test's own.
    pub fn start(backend: &str, test: u8) -> Self {
        Self::start_with(&format!("backend = {backend:?}\n"), test, "")
    }

    /// Starts one with more keys in `[dataplane]`, and more tables.
    pub fn start_with(keys: &str, test: u8, tables: &str) -> Self {
        Self::start_by(binary(), keys, test, tables)
    }

    /// Starts one that may have so many open files.
    pub fn start_with_files(files: u64, keys: &str, test: u8, tables: &str) -> Self {
        let mut limited = Process::new("prlimit");
        limited.arg(format!("--nofile={files}:{files}"));
        limited.arg(binary().get_program());
        Self::start_by(limited, keys, test, tables)
    }

    fn start_by(program: Process, keys: &str, test: u8, tables: &str) -> Self {
        let process = std::process::id();
        let octets = [80 + (process % 160) as u8, (process / 160 % 250) as u8];
        let address = IpAddr::from([127, octets[0], octets[1], test]);
        let directory = tempfile::tempdir().unwrap();
        let place = if tables.is_empty() {
            format!("address = \"{address}\"\nports = \"42000-42199\"\n")
        } else {
            tables.replace("ADDRESS", &address.to_string())
        };
        let data_dir = directory.path().join("data");
        let config = format!("data_dir = {data_dir:?}\n[dataplane]\n{keys}{place}");
        std::fs::write(directory.path().join("trunkline.toml"), config).unwrap();
        let child = Self::spawn(program, directory.path());
        Self {
            child,
            directory,
            address,
        }
    }

    fn spawn(mut program: Process, directory: &Path) -> Child {
        program
            .arg("--config")
            .arg(directory.join("trunkline.toml"))
            .stderr(std::fs::File::create(directory.join("log")).unwrap())
            .spawn()
            .unwrap()
    }

    /// Starts it again after it died.
    pub fn restart(&mut self) {
        self.child = Self::spawn(binary(), self.directory.path());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn socket(&self) -> PathBuf {
        self.data_dir().join("run/dataplane.sock")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Attaches, waiting for the process to listen.
    pub fn attach(&mut self) -> Control {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match ControlLink::connect(&self.socket()) {
                Ok(link) => return Control::over(link),
                Err(error) => {
                    let ended = self.child.try_wait().unwrap();
                    let failed = ended.is_some() || Instant::now() > deadline;
                    assert!(!failed, "{error}, {ended:?}:\n{}", self.log());
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("dataplane's log:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A control.
pub struct Control {
    pub link: ControlLink,
    request: u64,
    events: VecDeque<Event>,
}

fn request_of(event: &Event) -> u64 {
    match event {
        Event::Done { request }
        | Event::Failed { request, .. }
        | Event::SessionOpened { request, .. }
        | Event::RecordingState { request, .. }
        | Event::SnapshotEnd { request } => *request,
        _ => 0,
    }
}

impl Control {
    pub fn over(link: ControlLink) -> Self {
        Self {
            link,
            request: 0,
            events: VecDeque::new(),
        }
    }

    /// Sends a command and waits for its answer; other events are kept.
    pub fn ask(&mut self, command: &Command) -> Event {
        let request = self.send(command);
        self.expect(|event| request_of(event) == request)
    }

    pub fn send(&mut self, command: &Command) -> u64 {
        self.request += 1;
        self.link.send(self.request, command).unwrap();
        self.request
    }

    /// `ask` for commands answered by `Done`.
    #[track_caller]
    pub fn done(&mut self, command: &Command) {
        let answer = self.ask(command);
        assert!(
            matches!(answer, Event::Done { .. }),
            "{answer:?} to {command:?}"
        );
    }

    /// The first event, kept or new, that fits.
    #[track_caller]
    pub fn expect(&mut self, fits: impl Fn(&Event) -> bool) -> Event {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(place) = self.events.iter().position(&fits) {
                return self.events.remove(place).unwrap();
            }
            self.read(deadline);
        }
    }

    #[track_caller]
    fn read(&mut self, deadline: Instant) {
        assert!(
            Instant::now() < deadline,
            "never came; got {:?}",
            self.events
        );
        match self.link.poll_event().unwrap() {
            Some(event) => {
                assert!(
                    !matches!(event, Event::Alarm { active: true, .. }),
                    "{event:?}"
                );
                self.events.push_back(event);
            }
            None => {
                let mut files = [PollFd::new(self.link.event_fd(), PollFlags::POLLIN)];
                poll(&mut files, PollTimeout::from(100_u16)).unwrap();
            }
        }
    }

    /// All events kept so far.
    pub fn take_events(&mut self) -> Vec<Event> {
        while let Some(event) = self.link.poll_event().unwrap() {
            self.events.push_back(event);
        }
        self.events.drain(..).collect()
    }
}

pub fn open(session: u64, ports: [u16; 2]) -> Command {
    Command::SessionOpen(SessionOpen {
        session,
        interface: [0, 0],
        media_timeout_ms: 0,
        beside: 0,
        media: vec![MediaOpen {
            kind: MediaKind::Audio,
            ports,
        }],
    })
}

pub fn start_recording(session: u64, recording: u64) -> Command {
    Command::RecordingStart(RecordingStart {
        session,
        recording,
        origin_mono_ns: 0,
        first_ordinal: 0,
        prev_segment: 0,
        prev_page: 0,
        open_fact: br#"{"call_id":"test"}"#.to_vec(),
    })
}

/// A session with both sides described.
pub struct Call {
    pub session: u64,
    /// Our RTP address towards each party.
    pub ours: [SocketAddr; 2],
    pub parties: [Party; 2],
}

/// An RTP party.
pub struct Party {
    pub socket: UdpSocket,
    ssrc: u32,
    sequence: u16,
}

impl Party {
    pub fn new(ssrc: u32) -> Self {
        Self::at("127.0.0.1:0", ssrc)
    }

    pub fn at(address: &str, ssrc: u32) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            ssrc,
            sequence: 65_500,
        }
    }

    /// The next packet of its stream.
    pub fn packet(&mut self) -> Vec<u8> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let mut packet = vec![0x80, 0];
        packet.extend(sequence.to_be_bytes());
        packet.extend((u32::from(sequence) * 160).to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend((0..160_u32).map(|at| (at + u32::from(sequence) + self.ssrc) as u8));
        packet
    }
}

impl Call {
    pub fn leg(&self, side: Side) -> Command {
        let party = self.parties[side as usize].socket.local_addr().unwrap();
        Command::LegUpdate(LegUpdate {
            session: self.session,
            media: 0,
            side,
            flags: leg_flags::LEARN | leg_flags::EXPECT_MEDIA | leg_flags::MAY_SEND,
            rtp: Some(party),
            rtcp: None,
            signalling: Some(party.ip()),
            payloads: vec![Payload {
                pt: 0,
                to_pt: 0,
                codec: CodecId::Pcmu,
                clock_hz: 8000,
            }],
            restore: None,
        })
    }

    /// Opens a session and describes both sides.
    #[track_caller]
    pub fn open(control: &mut Control, address: IpAddr, session: u64, ports: [u16; 2]) -> Self {
        let answer = control.ask(&open(session, ports));
        let Event::SessionOpened { ports, .. } = answer else {
            panic!("{answer:?}")
        };
        let ours = ports[0].map(|port| SocketAddr::new(address, port));
        let parties = [Party::new(0x1111), Party::new(0x2222)];
        let call = Self {
            session,
            ours,
            parties,
        };
        for side in Side::BOTH {
            control.done(&call.leg(side));
        }
        call
    }

    /// Each party sends `count` packets; each must arrive at the other as it was sent, from our port.
    #[track_caller]
    pub fn talk(&mut self, count: usize) {
        for _ in 0..count {
            for side in 0..2 {
                let packet = self.parties[side].packet();
                self.parties[side]
                    .socket
                    .send_to(&packet, self.ours[side])
                    .unwrap();
                let mut heard = [0; 2000];
                let far = &self.parties[1 - side];
                let (length, from) = far.socket.recv_from(&mut heard).expect("relayed");
                assert_eq!(from, self.ours[1 - side]);
                assert_eq!(&heard[..length], packet);
            }
        }
    }
}

/// The whole of a child's output.
pub fn output(process: &mut Process) -> (Option<i32>, String, String) {
    let output = process.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

pub fn read_line(from: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while from.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}
