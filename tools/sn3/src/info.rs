//! `sn3 info`.

use crate::Outcome;
use crate::played::{Played, played};
use crate::source::{Opened, Source, complain};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use trunkline_audio::{Options, Plan, StreamReport, TelephoneEvent};
use trunkline_codec::Format;
use trunkline_sn3::Capture;

#[derive(clap::Args)]
#[command(after_help = "Example: sn3 info call.sn3 --json")]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The codec of a capture that does not name it.
    #[arg(long, value_name = "NAME", value_parser = crate::wav::parse_codec)]
    codec: Option<Format>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let capture = match arguments.source.open()? {
        Opened::Capture(capture) => capture,
        // Telling what there is is all that was asked for.
        Opened::Listed(_) => return Ok(Outcome::Fine),
    };
    let file = &arguments.source.file;
    let damaged = complain(&capture, file);
    let options = Options {
        codec: arguments.codec,
        any_length: true,
        ..Options::default()
    };
    let plan = Plan::new(&capture, &options).with_context(|| file.display().to_string())?;
    let nonsense = plan.nonsense().is_some();
    if arguments.json {
        let text = as_json(&file.display().to_string(), &capture, &plan);
        say!("{}", serde_json::to_string_pretty(&text)?);
    } else {
        print(&capture, &plan);
    }
    Ok(if damaged || nonsense {
        Outcome::Flawed
    } else {
        Outcome::Fine
    })
}

fn as_json(file: &str, capture: &Capture, plan: &Plan) -> Value {
    let facts = capture.facts();
    json!({
        "file": file,
        "format": format!("{:?}", capture.format()).to_lowercase(),
        "recording": facts.recording,
        "call": facts.open,
        "changes": facts.changes.iter().map(|(at, change)| json!({
            "at_ms": *at as f64 / 1e6, "change": change,
        })).collect::<Vec<_>>(),
        "close": facts.close.as_ref().map(|(_, close)| close),
        "duration_ms": plan.duration_ms(),
        "rate_hz": plan.rate_hz(),
        "samples": plan.samples(),
        "starts_at_ms": plan.start_ns() as f64 / 1e6,
        "pauses": facts.pauses.iter().map(|pause| json!({
            "from_ms": pause.from_ns as f64 / 1e6,
            "to_ms": pause.to_ns.map(|ns| ns as f64 / 1e6),
        })).collect::<Vec<_>>(),
        "drops": facts.drops.iter().map(|(at, drop)| json!({
            "at_ms": *at as f64 / 1e6, "reason": drop.reason_name(), "count": drop.count,
        })).collect::<Vec<_>>(),
        "streams": plan.streams().iter().map(stream_json).collect::<Vec<_>>(),
        "dtmf": plan.events().iter().map(event_json).collect::<Vec<_>>(),
        "played": played(capture).iter().map(Played::as_json).collect::<Vec<_>>(),
        "notes": plan.notes(),
        "damages": capture.damages().iter().map(|damage| json!({
            "file": damage.path.display().to_string(),
            "offset": damage.offset,
            "length": damage.length,
            "what": damage.what,
        })).collect::<Vec<_>>(),
    })
}

pub(crate) fn side_name(side: u8) -> &'static str {
    if side == 0 { "caller" } else { "callee" }
}

fn stream_json(stream: &StreamReport) -> Value {
    json!({
        "side": side_name(stream.side),
        "media": stream.media,
        "ssrc": stream.ssrc.map(|ssrc| format!("{ssrc:08x}")),
        "packets": stream.packets,
        "bytes": stream.bytes,
        "expected": stream.expected,
        "lost": stream.lost,
        "loss_percent": stream.loss_percent(),
        "duplicates": stream.duplicates,
        "reordered": stream.reordered,
        "jitter_ms": stream.jitter_ms,
        "jitter_max_ms": stream.jitter_max_ms,
        "mos": stream.mos(),
        "first_ms": stream.first_ms,
        "last_ms": stream.last_ms,
        "anchors": stream.anchors,
        "drift_ppm": stream.drift_ppm,
        "stray": stream.stray,
        "codecs": stream.codecs.iter().map(|codec| json!({
            "codec": codec.codec,
            "clock_hz": codec.clock_hz,
            "payload_type": codec.payload_type,
            "from_ms": codec.from_ms,
            "packets": codec.packets,
            "supported": codec.supported,
            "assumed": codec.assumed,
        })).collect::<Vec<_>>(),
    })
}

pub(crate) fn event_json(event: &TelephoneEvent) -> Value {
    json!({
        "side": side_name(event.side),
        "key": event.key.map(String::from),
        "event": event.event,
        "start_ms": event.start_ms,
        "duration_ms": event.duration_ms,
        "volume_dbm0": -i32::from(event.volume),
        "reports": event.reports,
    })
}

fn print(capture: &Capture, plan: &Plan) {
    let facts = capture.facts();
    say!("format     {:?}", capture.format());
    if let Some(open) = &facts.open {
        say!("recording  {} ({})", facts.recording, open.recording_id);
        say!(
            "call       {}  {} -> {}",
            open.call_id,
            open.caller,
            open.callee
        );
        say!("started    {}", open.started_at);
    }
    if let Some((_, close)) = &facts.close {
        say!("ended      {}  {}", close.ended_at, close.verdict);
    }
    let seconds = plan.duration_ms() as f64 / 1e3;
    say!(
        "sound      {seconds:.3} s at {} Hz, {} samples",
        plan.rate_hz(),
        plan.samples()
    );
    for pause in &facts.pauses {
        let until = pause.to_ns.map_or("the end".to_owned(), |ns| {
            format!("{:.3} s", ns as f64 / 1e9)
        });
        say!("paused     {:.3} s to {until}", pause.from_ns as f64 / 1e9);
    }
    for stream in plan.streams() {
        print_stream(stream);
    }
    for event in plan.events() {
        let key = event
            .key
            .map_or(format!("event {}", event.event), String::from);
        say!(
            "dtmf       {} {key} at {:.3} s for {} ms",
            side_name(event.side),
            event.start_ms as f64 / 1e3,
            event.duration_ms,
        );
    }
    for one in played(capture) {
        say!("{}", one.as_text());
    }
    for note in plan.notes() {
        say!("note       {note}");
    }
}

fn print_stream(stream: &StreamReport) {
    let ssrc = stream
        .ssrc
        .map_or(String::new(), |ssrc| format!(" ssrc {ssrc:08x}"));
    say!(
        "stream     {}{ssrc}: {} packets, {} lost ({:.2} %), {} duplicates, {} reordered, \
         jitter {:.1} ms (max {:.1}), MOS {}",
        side_name(stream.side),
        stream.packets,
        stream.lost,
        stream.loss_percent(),
        stream.duplicates,
        stream.reordered,
        stream.jitter_ms,
        stream.jitter_max_ms,
        stream
            .mos()
            .map_or("unknown".to_owned(), |mos| format!("{mos:.1}")),
    );
    for codec in &stream.codecs {
        let pt = codec
            .payload_type
            .map_or(String::new(), |pt| format!(" (payload type {pt})"));
        let assumed = if codec.assumed { ", assumed" } else { "" };
        say!(
            "             {}{pt} from {:.3} s, {} packets{assumed}",
            codec.codec,
            codec.from_ms as f64 / 1e3,
            codec.packets,
        );
    }
}
