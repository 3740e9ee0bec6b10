#![no_main]
use libfuzzer_sys::fuzz_target;
use trunkline_codec::{CodecKind, Format};

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, payload)) = bytes.split_first() else {
        return;
    };
    let kind = CodecKind::ALL[usize::from(choice) % CodecKind::ALL.len()];
    let format = Format::usual(kind);
    let promised = format.samples(payload);
    if let Ok(mut decoder) = format.decoder() {
        let mut output = Vec::new();
        if let Ok(count) = decoder.decode(payload, &mut output) {
            assert_eq!(count, output.len());
            assert_eq!(promised, Some(count));
        }
        decoder.conceal(960, Some(payload), &mut output);
        decoder.idle(960, &mut output);
    }
});
