//! Who hears of its recording by a tone or an announcement, when, and what proves it.

use trunkline_config::{Sound, Tone};
use trunkline_control::api::handle::RecordingAction;
use trunkline_control::sounds;
use trunkline_link::message::{Command, Event, PlayMode, PlayStart, Side};
use trunkline_sinks::object::{Indication, IndicationKind, Role};
use trunkline_sip::message::Method;

use super::awareness::call;
use super::common::{World, sdp};

const TONE: &str =
    "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecord = true\nindication = \"tone\"\n";
const SPOKEN: &str = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecord = true\n\
                      indication = \"announcement\"\nannouncement = \"spoken.wav\"\n";

/// What the configuration names is encoded; for a file a tone stands.
fn ready(world: &mut World) {
    let voices = sounds::prepare(&Sound::Tone(Tone::default()));
    for sound in sounds::wanted(&world.config) {
        let now = world.moment();
        world.b2bua.prepared(&sound, voices.clone(), &now);
    }
    world.run(10);
}

/// A call between unaware parties (or not), what they may hear being ready.
fn between(text: &str, caller_aware: bool, callee_aware: bool) -> (World, usize) {
    between_codecs(text, (caller_aware, callee_aware), "0", "")
}

fn between_codecs(text: &str, aware: (bool, bool), pts: &str, more: &str) -> (World, usize) {
    let says = |port| sdp("127.0.0.1", port).replace("AVP 0", &format!("AVP {pts}")) + more;
    let (mut world, alice) = call(text, (aware.0, &says(6_000)), (aware.1, &says(7_000)));
    ready(&mut world);
    (world, alice)
}

/// What the dataplane was told of sounds and of capture, in order.
fn told(world: &World) -> Vec<String> {
    let side = |side: &Side| format!("{side:?}").to_lowercase();
    let mut told: Vec<String> = Vec::new();
    for command in &world.dataplane.commands {
        told.push(match command {
            Command::SourceLoad(piece) if piece.first == 0 => format!("load {:?}", piece.codec),
            Command::PlayStart(play) => format!("play {}", side(&play.to)),
            Command::PlayStop { to, .. } => format!("stop {}", side(to)),
            Command::RecordingStart(_) => "record".to_owned(),
            Command::RecordingPause { .. } => "pause".to_owned(),
            Command::RecordingResume { .. } => "resume".to_owned(),
            Command::RecordingStop { .. } => "end".to_owned(),
            _ => continue,
        });
    }
    told
}

fn plays(world: &World) -> Vec<PlayStart> {
    let commands = world.dataplane.commands.iter();
    commands
        .filter_map(|command| match command {
            Command::PlayStart(play) => Some(play.clone()),
            _ => None,
        })
        .collect()
}

/// A side has heard what it was last played.
fn heard(world: &mut World, to: Side, ms: u32, whole: bool) {
    let now = world.moment();
    let plays = plays(world);
    let play = plays.iter().rfind(|play| play.to == to).expect("a play");
    let event = Event::Played {
        session: play.session,
        media: play.media,
        to,
        play: play.play,
        from_mono_ns: now.mono_ns - u64::from(ms) * 1_000_000,
        to_mono_ns: now.mono_ns,
        packets: ms / 20,
        played_ms: ms,
        whole,
    };
    world.b2bua.on_link_event(event, &now);
    world.run(10);
}

fn indications(world: &World) -> Vec<Indication> {
    let recording = world.written_recordings().pop().unwrap();
    recording.receipt.unwrap().indications
}

fn end(world: &mut World) {
    world.alice.bye(world.now());
    world.run(2_000);
    assert!(world.b2bua.is_idle());
}

#[test]
fn both_hear_a_tone_while_they_are_recorded_and_the_receipt_counts_it() {
    let (mut world, _) = between(TONE, false, false);
    assert_eq!(
        told(&world),
        ["record", "load Pcmu", "play caller", "play callee"],
        "loaded once"
    );
    let [caller, callee] = &plays(&world)[..] else {
        panic!("two plays")
    };
    assert_ne!(caller.play, callee.play);
    assert_eq!((caller.every_ms, caller.packet_ms), (15_000, 20));
    assert_eq!((caller.voices.len(), caller.voices[0].pt), (1, 0));
    assert_eq!(caller.mode, PlayMode::Insert);
    let began = world.moment().utc.0;
    for _ in 0..3 {
        world.run(15_000);
        heard(&mut world, Side::Caller, 400, true);
        heard(&mut world, Side::Callee, 400, true);
    }
    world.run(1_000);
    // Of the last one a part was heard; that comes before capture's own end.
    end(&mut world);
    let told = told(&world);
    assert_eq!(told[4..], ["stop caller", "stop callee", "end"]);
    let found = indications(&world);
    assert_eq!(found.len(), 2, "{found:?}");
    for (one, side) in found.iter().zip([Role::Caller, Role::Callee]) {
        assert_eq!((one.side, one.kind), (side, IndicationKind::Tone));
        assert_eq!(one.value, "1400 Hz");
        assert_eq!(
            (one.times, one.duration_ms, one.frames),
            (Some(3), Some(1_200), Some(60))
        );
        assert!((14_000..15_100).contains(&(one.at.0 - began)), "{one:?}");
        assert!((44_000..46_000).contains(&(one.until.unwrap().0 - began)));
    }
}

#[test]
fn who_understands_a_record_hears_nothing_and_the_route_says_who_else_does() {
    let (mut world, _) = between(TONE, true, false);
    assert_eq!(told(&world), ["record", "load Pcmu", "play callee"]);
    heard(&mut world, Side::Callee, 400, true);
    end(&mut world);
    let kinds: Vec<_> = indications(&world)
        .iter()
        .map(|one| (one.side, one.kind))
        .collect();
    let record = IndicationKind::Record;
    assert_eq!(
        kinds,
        [(Role::Caller, record), (Role::Callee, IndicationKind::Tone)]
    );
    let (world, _) = between(TONE, true, true);
    assert_eq!(told(&world), ["record"]);
    let text = format!("{TONE}indication_to = \"caller\"\nindication_mode = \"mix\"\n");
    let (world, _) = between(&text, false, false);
    assert_eq!(told(&world), ["record", "load Pcmu", "play caller"]);
    assert_eq!(plays(&world)[0].mode, PlayMode::Mix);
}

#[test]
fn an_announcement_is_heard_once_a_recording() {
    let (mut world, _) = between(SPOKEN, false, false);
    assert_eq!(plays(&world)[0].every_ms, 0);
    heard(&mut world, Side::Caller, 400, true);
    heard(&mut world, Side::Callee, 100, false);
    let id = world.only_call().id;
    let before = told(&world).len();
    // The callee has heard a part only: it hears it again when recording goes on.
    world.act(&id, RecordingAction::Pause).unwrap();
    world.act(&id, RecordingAction::Resume).unwrap();
    assert_eq!(
        told(&world)[before..],
        ["stop callee", "pause", "resume", "play callee"]
    );
    let [.., first, again] = &plays(&world)[..] else {
        panic!("plays")
    };
    assert_eq!(first.play, again.play);
    heard(&mut world, Side::Callee, 400, true);
    let before = told(&world).len();
    world.act(&id, RecordingAction::Pause).unwrap();
    world.act(&id, RecordingAction::Resume).unwrap();
    assert_eq!(told(&world)[before..], ["pause", "resume"]);
    world.act(&id, RecordingAction::Stop).unwrap();
    world.act(&id, RecordingAction::Start).unwrap();
    let told = told(&world);
    assert_eq!(
        told[before + 2..],
        ["end", "record", "play caller", "play callee"]
    );
    let receipt = world.written_recordings().remove(0).receipt.unwrap();
    let heard: Vec<_> = receipt
        .indications
        .iter()
        .map(|one| (one.side, one.value.as_str(), one.duration_ms))
        .collect();
    let expected = [
        (Role::Caller, "spoken.wav", Some(400)),
        (Role::Callee, "spoken.wav", Some(100)),
        (Role::Callee, "spoken.wav", Some(400)),
    ];
    assert_eq!(heard, expected);
}

#[test]
fn nothing_is_heard_before_anything_is_recorded_or_ready() {
    let text = TONE.replace("true", "\"on_demand\"");
    let (mut world, _) = between(&text, false, false);
    assert!(told(&world).is_empty());
    let id = world.only_call().id;
    world.act(&id, RecordingAction::Start).unwrap();
    assert_eq!(
        told(&world),
        ["record", "load Pcmu", "play caller", "play callee"]
    );
    // Not encoded yet when the call is answered.
    let mut world = World::new(TONE);
    world.establish();
    assert_eq!(told(&world), ["record"]);
    ready(&mut world);
    assert_eq!(
        told(&world),
        ["record", "load Pcmu", "play caller", "play callee"]
    );
    // It never will be.
    let mut world = World::new(SPOKEN);
    world.establish();
    let (sound, now) = (sounds::wanted(&world.config).remove(0), world.moment());
    let error = sounds::prepare(&sound);
    assert!(error.is_err());
    world.b2bua.prepared(&sound, error, &now);
    world.run(100);
    assert_eq!(told(&world), ["record"]);
    assert!(world.events().contains(&"alarm.raised"));
}

#[test]
fn a_codec_without_a_sound_is_told_of_and_one_with_two_gets_both() {
    let (world, _) = between_codecs(TONE, (false, false), "18", "a=rtpmap:18 G729/8000\r\n");
    assert_eq!(told(&world), ["record"]);
    let found = indications(&world);
    assert_eq!(found.len(), 2);
    for one in found {
        assert_eq!((one.frames, one.times), (Some(0), Some(0)));
        assert_eq!(one.value, "not played: no sound in G729");
    }
    assert!(world.events().contains(&"alarm.raised"));
    let more = "a=rtpmap:96 opus/48000/2\r\na=ptime:40\r\n";
    let (world, _) = between_codecs(TONE, (false, false), "8 96 0", more);
    let expected = [
        "record",
        "load Pcma",
        "load Opus",
        "load Pcmu",
        "play caller",
        "play callee",
    ];
    assert_eq!(told(&world), expected);
    let play = &plays(&world)[0];
    let pts: Vec<u8> = play.voices.iter().map(|voice| voice.pt).collect();
    assert_eq!((pts, play.packet_ms), (vec![8, 96, 0], 40));
}

#[test]
fn a_changed_codec_goes_on_with_the_same_play_in_another_voice() {
    let (mut world, _) = between(TONE, false, false);
    let before = plays(&world);
    let now = world.now();
    let says = |port| {
        sdp("127.0.0.1", port)
            .replace("AVP 0", "AVP 8")
            .replace("0 PCMU", "8 PCMA")
    };
    world.alice.reinvite(Some(&says(6_000)), now);
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    let now = world.now();
    world.bob.respond(&invite, 200, Some(&says(7_000)), now);
    world.run(100);
    let after = plays(&world);
    assert_eq!(after.len(), 4);
    for (old, new) in before.iter().zip(&after[2..]) {
        assert_eq!((old.to, old.play), (new.to, new.play));
        assert_eq!(new.voices[0].pt, 8);
    }
}

#[test]
fn it_goes_on_over_a_restart_of_either_process() {
    let (mut world, _) = between(TONE, false, false);
    heard(&mut world, Side::Caller, 400, true);
    let before = plays(&world);
    world.restart_control();
    ready(&mut world);
    let after = plays(&world);
    assert_eq!(after.len(), 4);
    for (old, new) in before.iter().zip(&after[2..]) {
        assert_eq!(
            (old.play, &old.voices),
            (new.play, &new.voices),
            "it is not begun anew"
        );
    }
    world.restart_dataplane();
    assert_eq!(
        told(&world),
        ["record", "load Pcmu", "play caller", "play callee"]
    );
    heard(&mut world, Side::Caller, 400, true);
    end(&mut world);
    let found = indications(&world);
    assert_eq!((found.len(), found[0].times), (1, Some(2)));
}

#[test]
fn a_dataplane_that_refuses_is_asked_again_once() {
    let mut world = World::new(TONE);
    world.dataplane.refuses_plays = true;
    world.establish();
    ready(&mut world);
    world.run(10_000);
    let expected = ["record", "load Pcmu", "play caller", "play callee"];
    assert_eq!(told(&world)[..4], expected);
    assert_eq!(plays(&world).len(), 4);
    assert!(world.events().contains(&"alarm.raised"));
    end(&mut world);
}

#[test]
fn who_joins_by_transfer_hears_it_too() {
    let carol = SPOKEN.replace(
        "next = \"sip:127.0.0.1:5070\"",
        "user = \"carol\"\nnext = \"sip:127.0.0.1:5071\"",
    );
    let (mut world, _) = between(&format!("{carol}{SPOKEN}"), false, false);
    heard(&mut world, Side::Caller, 400, true);
    heard(&mut world, Side::Callee, 400, true);
    let before = plays(&world).len();
    let refer = [("Refer-To", "<sip:carol@127.0.0.1:5060>")];
    world.bob.request(Method::Refer, &refer, world.now());
    world.run(50);
    let invite = world.carol.take_invite().expect("the target is called");
    let (now, says) = (world.now(), sdp("127.0.0.1", 7_100));
    world.carol.respond(&invite, 200, Some(&says), now);
    world.run(500);
    let after = plays(&world);
    assert_eq!(after.len(), before + 1, "{:?}", told(&world));
    assert_eq!(after[before].to, Side::Callee);
}
