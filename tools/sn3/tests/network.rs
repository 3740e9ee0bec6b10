//! Packets in and out: pcapng that tshark reads, captures of every shape made into SN3, pictures.

#[path = "../../../dataplane/audio/tests/support/mod.rs"]
mod audio;

use assert_cmd::Command;
use audio::*;
use std::path::Path;
use std::process::Command as Program;

fn sn3(directory: &Path, arguments: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = Command::cargo_bin("sn3").unwrap();
    command.args(arguments).current_dir(directory).assert()
}

fn two_way() -> (Vec<i16>, Vec<i16>, Vec<Packet>) {
    let (caller, callee) = (speech(8_000, 3.0, 0), speech(8_000, 3.0, 1));
    let mut packets = pcmu(0, &caller, 0);
    packets.extend(pcmu(1, &callee, 0));
    packets.sort_by_key(|packet| packet.wall_ns);
    (through_mu_law(&caller), through_mu_law(&callee), packets)
}

fn wav(path: &Path) -> (Vec<i16>, Vec<i16>) {
    let mut reader = hound::WavReader::open(path).unwrap();
    let samples: Vec<i16> = reader.samples::<i16>().map(Result::unwrap).collect();
    let channel = |skip| samples.iter().skip(skip).step_by(2).copied().collect();
    (channel(0), channel(1))
}

fn run(program: &str, arguments: &[&str], directory: &Path) -> String {
    let output = Program::new(program)
        .args(arguments)
        .current_dir(directory)
        .output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn tshark_reads_both_formats_and_what_was_exported_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let (left, right, packets) = two_way();
    std::fs::write(place.join("call.sn3"), blob(packets)).unwrap();
    for name in ["call.pcapng", "call.pcap"] {
        sn3(place, &["pcap", "call.sn3", "-o", name, "--json"]).code(0);
        let rtp = [
            "-r",
            name,
            "-Y",
            "rtp.p_type == 0",
            "-T",
            "fields",
            "-e",
            "rtp.seq",
        ];
        assert_eq!(run("tshark", &rtp, place).lines().count(), 300, "{name}");
        sn3(place, &["import", name, "-o", "back.sn3"]).code(0);
        sn3(place, &["wav", "back.sn3", "-o", "back.wav"]).code(0);
        assert_eq!(wav(&place.join("back.wav")), (left.clone(), right.clone()));
    }
}

/// How frames are wrapped.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Link {
    Ethernet,
    Vlan,
    Cooked,
    Cooked2,
    Raw,
}

/// IP packets of one datagram, `fragment` bytes in each at most.
fn ip(
    v6: bool,
    side: u8,
    ports: (u16, u16),
    payload: &[u8],
    fragment: usize,
    id: u16,
) -> Vec<Vec<u8>> {
    let mut udp = Vec::new();
    udp.extend(ports.0.to_be_bytes());
    udp.extend(ports.1.to_be_bytes());
    udp.extend((payload.len() as u16 + 8).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let parts: Vec<(usize, Vec<u8>)> = udp
        .chunks(fragment)
        .enumerate()
        .map(|(n, part)| (n * fragment, part.to_vec()))
        .collect();
    let last = parts.len() - 1;
    let wrap = |(n, (offset, part)): (usize, (usize, Vec<u8>))| {
        let more = u16::from(n < last);
        let mut packet = Vec::new();
        let address = |host: u8| [&[0x20, 1, 0xD, 0xB8], &[0; 11][..], &[host]].concat();
        let (from, to) = (side + 1, 2 - side);
        if v6 {
            let extra = if last > 0 { 8 } else { 0 };
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((part.len() as u16 + extra).to_be_bytes());
            packet.extend([if last > 0 { 44 } else { 17 }, 64]);
            packet.extend(address(from));
            packet.extend(address(to));
            if last > 0 {
                packet.extend([17, 0]);
                packet.extend((offset as u16 | more).to_be_bytes());
                packet.extend(u32::from(id).to_be_bytes());
            }
        } else {
            packet.extend([0x45, 0]);
            packet.extend((part.len() as u16 + 20).to_be_bytes());
            packet.extend(id.to_be_bytes());
            packet.extend(((offset as u16 / 8) | (more << 13)).to_be_bytes());
            packet.extend([64, 17, 0, 0, 192, 0, 2, from, 192, 0, 2, to]);
        }
        packet.extend(part);
        packet
    };
    parts.into_iter().enumerate().map(wrap).collect()
}

fn frame(link: Link, v6: bool, packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if v6 { [0x86, 0xDD] } else { [8, 0] };
    let mut frame = match link {
        Link::Ethernet => [&[2; 12], &kind[..]].concat(),
        Link::Vlan => [&[2; 12], &[0x81, 0, 0, 7][..], &kind].concat(),
        Link::Cooked => [&[0; 14], &kind[..]].concat(),
        Link::Cooked2 => [&kind[..], &[0; 18]].concat(),
        Link::Raw => Vec::new(),
    };
    frame.extend(packet);
    frame
}

/// A pcap of a call: INVITE, 200, RTP both ways, BYE.
fn pcap(link: Link, v6: bool, sip: bool, packets: &[Packet]) -> Vec<u8> {
    let number: u32 = match link {
        Link::Ethernet | Link::Vlan => 1,
        Link::Cooked => 113,
        Link::Cooked2 => 276,
        Link::Raw => 101,
    };
    let mut file = 0xA1B2_3C4D_u32.to_le_bytes().to_vec();
    file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0]);
    file.extend(number.to_le_bytes());
    let mut id = 0;
    let mut put = |ns: u64, side: u8, ports: (u16, u16), payload: &[u8], fragment: usize| {
        id += 1;
        for packet in ip(v6, side, ports, payload, fragment, id) {
            let bytes = frame(link, v6, &packet);
            let utc_ns = 1_790_000_000_000_000_000 + ns;
            file.extend(((utc_ns / 1_000_000_000) as u32).to_le_bytes());
            file.extend(((utc_ns % 1_000_000_000) as u32).to_le_bytes());
            file.extend((bytes.len() as u32).to_le_bytes());
            file.extend((bytes.len() as u32).to_le_bytes());
            file.extend(bytes);
        }
    };
    let (family, host) = if v6 {
        ("IP6", "2001:db8::")
    } else {
        ("IP4", "192.0.2.")
    };
    let message = |first: &str, cseq: &str, to_tag: &str, port: u16, side: u8| {
        let sdp = if port == 0 {
            String::new()
        } else {
            format!(
                "v=0\r\no=- 1 1 IN {family} {host}{0}\r\ns=-\r\nc=IN {family} {host}{0}\r\nt=0 0\r\n\
                 m=audio {port} RTP/AVP 97\r\na=rtpmap:97 PCMU/8000\r\n",
                side + 1,
            )
        };
        format!(
            "{first}\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nf: <sip:+4930@a>;tag=one\r\n\
             To: <sip:agent@b>{to_tag}\r\nCall-ID: x/y@z\r\nCSeq: {cseq}\r\n\
             X-Padding: {}\r\nContent-Length: {}\r\n\r\n{sdp}",
            "p".repeat(700),
            sdp.len(),
        )
    };
    if sip {
        let invite = message("INVITE sip:agent@b SIP/2.0", "1 INVITE", "", 4_000, 0);
        put(0, 0, (5_060, 5_060), invite.as_bytes(), 512);
        let ok = message("SIP/2.0 200 OK", "1 INVITE", ";tag=two", 4_002, 1);
        put(500 * MS, 1, (5_060, 5_060), ok.as_bytes(), 512);
    }
    for packet in packets {
        let mut rtp = vec![0x80, 97];
        rtp.extend(packet.seq.to_be_bytes());
        rtp.extend(packet.ts.to_be_bytes());
        rtp.extend(packet.ssrc.to_be_bytes());
        rtp.extend(&packet.payload);
        let ports = if packet.dir == 0 {
            (4_000, 4_002)
        } else {
            (4_002, 4_000)
        };
        put(500 * MS + packet.wall_ns, packet.dir, ports, &rtp, 2_000);
    }
    if sip {
        let bye = message("BYE sip:h SIP/2.0", "2 BYE", ";tag=two", 0, 0);
        put(4_000 * MS, 0, (5_060, 5_060), bye.as_bytes(), 4_000);
    }
    file
}

#[test]
fn calls_are_followed_over_every_link_and_both_ip_versions() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let (left, right, packets) = two_way();
    for link in [
        Link::Ethernet,
        Link::Vlan,
        Link::Cooked,
        Link::Cooked2,
        Link::Raw,
    ] {
        for v6 in [false, true] {
            let file = pcap(link, v6, true, &packets);
            std::fs::write(place.join("in.pcap"), &file).unwrap();
            sn3(place, &["import", "in.pcap", "-o", "call.sn3", "--json"]).code(0);
            sn3(place, &["wav", "call.sn3", "-o", "call.wav"])
                .code(0)
                .stderr("");
            let (got_left, got_right) = wav(&place.join("call.wav"));
            // From the answer to the BYE.
            assert_eq!(got_left.len(), 28_000, "{link:?} v6 {v6}");
            assert!(
                got_left[..24_000] == left && got_right[..24_000] == right,
                "{link:?} v6 {v6}"
            );
        }
    }
    let info = sn3(place, &["info", "call.sn3", "--json"]).code(0);
    let info: serde_json::Value = serde_json::from_slice(&info.get_output().stdout).unwrap();
    assert_eq!(info["call"]["caller"], "+4930");
    assert_eq!(info["call"]["callee"], "agent");
    assert_eq!(info["close"]["ended_by"], "caller");
}

/// The same call with its SIP in TCP: segments of 300 bytes, each second one sent twice.
fn over_tcp(file: &[u8]) -> Vec<u8> {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let mut out = file[..24].to_vec();
    let (mut at, mut next) = (24, [1_u32, 70_000]);
    let (mut wanted, mut message, mut head) = (0, Vec::new(), Vec::new());
    while at < file.len() {
        let (header, length) = (&file[at..at + 16], word(at + 8));
        let packet = &file[at + 16..at + 16 + length];
        at += 16 + length;
        // Behind 14 bytes of Ethernet: the fragment's offset.
        let first = packet[20] & 0x1F == 0 && packet[21] == 0;
        let sip = if first {
            packet[34..36] == 5_060_u16.to_be_bytes()
        } else {
            wanted > 0
        };
        if !sip {
            out.extend([header, packet].concat());
            continue;
        }
        if first {
            wanted = usize::from(u16::from_be_bytes([packet[38], packet[39]])) - 8;
            message = packet[42..].to_vec();
            head = header[..8].to_vec();
        } else {
            message.extend(&packet[34..]);
        }
        if message.len() < wanted {
            continue;
        }
        let side = usize::from(packet[29] - 1);
        for (index, part) in message.chunks(300).enumerate() {
            let mut tcp = [5_060_u16.to_be_bytes(), 5_060_u16.to_be_bytes()].concat();
            tcp.extend(next[side].to_be_bytes());
            tcp.extend([0, 0, 0, 0, 0x50, 0x18, 0, 0, 0, 0, 0, 0]);
            tcp.extend(part);
            let mut ip = vec![0x45, 0];
            ip.extend((tcp.len() as u16 + 20).to_be_bytes());
            ip.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
            ip.extend(&packet[26..34]);
            let frame = [&packet[..14], &ip, &tcp].concat();
            for _ in 0..=index % 2 {
                out.extend(&head);
                out.extend((frame.len() as u32).to_le_bytes());
                out.extend((frame.len() as u32).to_le_bytes());
                out.extend(&frame);
            }
            next[side] = next[side].wrapping_add(part.len() as u32);
        }
        wanted = 0;
    }
    out
}

#[test]
fn sip_over_tcp_is_followed_and_tshark_agrees() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let (left, right, packets) = two_way();
    let file = over_tcp(&pcap(Link::Ethernet, false, true, &packets));
    std::fs::write(place.join("in.pcap"), file).unwrap();
    let seen = run(
        "tshark",
        &[
            "-r",
            "in.pcap",
            "-Y",
            "sip",
            "-T",
            "fields",
            "-e",
            "sip.CSeq.method",
        ],
        place,
    );
    assert_eq!(
        seen.split_whitespace().collect::<Vec<_>>(),
        ["INVITE", "INVITE", "BYE"]
    );
    sn3(place, &["import", "in.pcap", "-o", "call.sn3"]).code(0);
    sn3(place, &["wav", "call.sn3", "-o", "call.wav"]).code(0);
    let (got_left, got_right) = wav(&place.join("call.wav"));
    assert_eq!(got_left.len(), 28_000, "from the answer to the BYE");
    assert!(got_left[..24_000] == left && got_right[..24_000] == right);
}

#[test]
fn editcap_makes_the_same_a_pcapng() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let (left, right, packets) = two_way();
    std::fs::write(
        place.join("in.pcap"),
        pcap(Link::Ethernet, false, true, &packets),
    )
    .unwrap();
    run("editcap", &["-F", "pcapng", "in.pcap", "in.pcapng"], place);
    sn3(place, &["import", "in.pcapng", "-o", "calls/"]).code(0);
    sn3(place, &["wav", "calls/0001-x_y_z.sn3", "-o", "call.wav"]).code(0);
    let (got_left, got_right) = wav(&place.join("call.wav"));
    assert!(got_left[..24_000] == left && got_right[..24_000] == right);
}

#[test]
fn without_sip_the_ports_are_given() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let (left, right, packets) = two_way();
    std::fs::write(
        place.join("in.pcap"),
        pcap(Link::Ethernet, false, false, &packets),
    )
    .unwrap();
    sn3(place, &["import", "in.pcap", "-o", "call.sn3"]).code(1);
    let ports = [
        "--caller",
        "192.0.2.1:4000",
        "--callee",
        "4002",
        "--rtpmap",
        "97=PCMU/8000",
    ];
    sn3(
        place,
        &[&["import", "in.pcap", "-o", "call.sn3"], &ports[..]].concat(),
    )
    .code(0);
    sn3(place, &["wav", "call.sn3", "-o", "call.wav"])
        .code(0)
        .stderr("");
    assert_eq!(wav(&place.join("call.wav")), (left, right));
}

#[test]
fn a_cut_or_garbled_pcap_gives_what_it_holds_and_names_the_place() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let (_, _, packets) = two_way();
    let whole = pcap(Link::Ethernet, false, true, &packets);
    std::fs::write(place.join("in.pcap"), &whole[..whole.len() / 2]).unwrap();
    let result = sn3(place, &["import", "in.pcap", "-o", "call.sn3"]).code(1);
    let message = String::from_utf8_lossy(&result.get_output().stderr).into_owned();
    assert!(message.contains("damaged at byte"), "{message}");
    sn3(place, &["wav", "call.sn3", "-o", "call.wav"]).code(0);
    let mut dice = Dice(5);
    for round in 0..60 {
        let mut broken = whole.clone();
        for _ in 0..=dice.below(30) {
            let at = dice.below(broken.len() as u64) as usize;
            broken[at] = dice.below(256) as u8;
        }
        broken.truncate(dice.below(broken.len() as u64) as usize + 1);
        if round % 3 == 0 {
            broken[..4].copy_from_slice(&0x0A0D_0D0A_u32.to_le_bytes());
        }
        std::fs::write(place.join("broken.pcap"), &broken).unwrap();
        let ended = sn3(place, &["import", "broken.pcap", "-o", "out/"]);
        let code = ended.get_output().status.code();
        assert!(matches!(code, Some(0..=2)), "round {round}: {code:?}");
    }
    for bytes in [&b""[..], b"\x0a\x0d\x0d\x0a", b"nonsense"] {
        std::fs::write(place.join("none.pcap"), bytes).unwrap();
        sn3(place, &["import", "none.pcap", "-o", "call.sn3"]).code(1);
    }
}

#[test]
fn a_plot_is_a_picture_with_marks_where_something_happened() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let (_, _, mut packets) = two_way();
    packets.retain(|packet| packet.dir == 1 || !(1_060..1_100).contains(&packet.seq));
    std::fs::write(place.join("call.sn3"), blob(packets)).unwrap();
    let plot = [
        "plot", "call.sn3", "-o", "call.png", "--width", "640", "--json",
    ];
    let said = sn3(place, &plot).code(0);
    let said: serde_json::Value = serde_json::from_slice(&said.get_output().stdout).unwrap();
    assert_eq!(said["losses"].as_array().unwrap().len(), 1);
    let loss = &said["losses"][0];
    assert_eq!(
        (loss["channel"].as_u64(), loss["duration_ms"].as_f64()),
        (Some(0), Some(800.0))
    );
    let probe = [
        "-v",
        "error",
        "-show_entries",
        "stream=width,height",
        "-of",
        "csv=p=0",
        "call.png",
    ];
    assert!(run("ffprobe", &probe, place).starts_with("640,"));
    let raw = [
        "-v", "error", "-i", "call.png", "-f", "rawvideo", "-pix_fmt", "rgb24", "-y", "raw",
    ];
    run("ffmpeg", &raw, place);
    let pixels = std::fs::read(place.join("raw")).unwrap();
    let colours = |wanted: [u8; 3]| {
        pixels
            .chunks_exact(3)
            .filter(|pixel| *pixel == wanted)
            .count()
    };
    assert!(colours([220, 40, 40]) > 500, "losses are red");
    assert!(colours([31, 90, 160]) > 5_000, "the waveform is blue");
}
