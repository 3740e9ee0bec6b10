//! Prepared sounds, taken in by pieces and handed to workers whole.

use std::collections::HashMap;
use std::sync::Arc;

use trunkline_codec::g711;
use trunkline_engine::{Codec, Companding, Source};
use trunkline_link::limits::{SOURCE_BYTES_MAX, SOURCES_BYTES_MAX};
use trunkline_link::message::{CodecId, FailReason, PlayStart, SourceLoad};

use crate::worker::translate::codec;

/// Sources that are being taken in at once.
const LOADING_MAX: usize = 8;

/// All of them.
#[derive(Debug, Default)]
pub struct Sources {
    /// With the place in the order in which they came.
    whole: HashMap<u64, (u64, Arc<Source>)>,
    loading: HashMap<u64, Loading>,
    /// Bytes of the whole ones.
    bytes: usize,
    came: u64,
}

/// One of which not all pieces have come.
#[derive(Debug)]
struct Loading {
    codec: CodecId,
    clock_hz: u32,
    frame_us: u32,
    frames_total: u32,
    frames: Vec<Vec<u8>>,
    bytes: usize,
}

impl Loading {
    fn begun_by(piece: &SourceLoad) -> Self {
        Self {
            codec: piece.codec,
            clock_hz: piece.clock_hz,
            frame_us: piece.frame_us,
            frames_total: piece.frames_total,
            frames: Vec::new(),
            bytes: 0,
        }
    }

    fn goes_on_with(&self, piece: &SourceLoad) -> bool {
        self.frames.len() == piece.first as usize
            && (self.codec, self.clock_hz, self.frame_us, self.frames_total)
                == (
                    piece.codec,
                    piece.clock_hz,
                    piece.frame_us,
                    piece.frames_total,
                )
    }
}

impl Sources {
    /// Takes in a piece. What does not fit what came before it is forgotten with it.
    ///
    /// # Errors
    /// No room, or no sound that is played.
    pub fn load(&mut self, piece: SourceLoad) -> Result<(), FailReason> {
        if self.whole.contains_key(&piece.source) {
            return Ok(());
        }
        let mut loading = match self.loading.remove(&piece.source) {
            _ if piece.first == 0 => Loading::begun_by(&piece),
            Some(known) if known.goes_on_with(&piece) => known,
            _ => return Err(FailReason::Invalid),
        };
        loading.bytes += piece.bytes();
        loading.frames.extend(piece.frames);
        if loading.bytes > SOURCE_BYTES_MAX {
            return Err(FailReason::NoCapacity);
        }
        if loading.frames.len() < loading.frames_total as usize {
            if self.loading.len() >= LOADING_MAX {
                return Err(FailReason::NoCapacity);
            }
            self.loading.insert(piece.source, loading);
            return Ok(());
        }
        self.insert(piece.source, &loading)
    }

    fn insert(&mut self, number: u64, loading: &Loading) -> Result<(), FailReason> {
        let codec = codec(loading.codec);
        let source = Source::new(
            codec,
            loading.clock_hz,
            loading.frame_us,
            loading.frames.iter().map(Vec::as_slice),
            companding(codec),
        );
        let source = source.map_err(|_| FailReason::Invalid)?;
        if !self.make_room(source.bytes()) {
            return Err(FailReason::NoCapacity);
        }
        self.bytes += source.bytes();
        self.came += 1;
        self.whole.insert(number, (self.came, Arc::new(source)));
        Ok(())
    }

    /// Forgets the oldest that nobody plays until there is room.
    fn make_room(&mut self, bytes: usize) -> bool {
        while self.bytes + bytes > SOURCES_BYTES_MAX {
            let idle = self.whole.iter();
            let idle = idle.filter(|(_, (_, source))| Arc::strong_count(source) == 1);
            let oldest = idle.min_by_key(|(_, (came, _))| *came);
            let Some(number) = oldest.map(|(&number, _)| number) else {
                return false;
            };
            if let Some((_, source)) = self.whole.remove(&number) {
                self.bytes -= source.bytes();
            }
        }
        true
    }

    /// The sources of a play's voices; `None` when one is not there whole.
    pub fn of(&self, play: &PlayStart) -> Option<Vec<Arc<Source>>> {
        let source = |number| {
            self.whole
                .get(&number)
                .map(|(_, source)| Arc::clone(source))
        };
        play.voices
            .iter()
            .map(|voice| source(voice.source))
            .collect()
    }
}

fn companding(codec: Codec) -> Option<Companding> {
    match codec {
        Codec::Pcmu => Some(Companding {
            expand: &g711::MU_LAW,
            compress: g711::encode_mu_law,
        }),
        Codec::Pcma => Some(Companding {
            expand: &g711::A_LAW,
            compress: g711::encode_a_law,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_link::message::{PlayMode, PlayVoice, Side};

    fn piece(source: u64, frames_total: u32, first: u32, frames: u32) -> SourceLoad {
        SourceLoad {
            source,
            codec: CodecId::Pcmu,
            clock_hz: 8_000,
            frame_us: 20_000,
            frames_total,
            first,
            frames: vec![vec![7; 160]; frames as usize],
        }
    }

    fn play(source: u64) -> PlayStart {
        PlayStart {
            session: 1,
            media: 0,
            to: Side::Caller,
            play: 1,
            mode: PlayMode::Mix,
            every_ms: 0,
            packet_ms: 20,
            ssrc: 1,
            voices: vec![PlayVoice { source, pt: 0 }],
        }
    }

    #[test]
    fn a_source_is_there_once_all_its_pieces_are() {
        let mut sources = Sources::default();
        assert_eq!(sources.load(piece(1, 5, 0, 2)), Ok(()));
        assert!(sources.of(&play(1)).is_none());
        assert_eq!(sources.load(piece(1, 5, 2, 3)), Ok(()));
        let found = sources.of(&play(1)).unwrap();
        assert_eq!((found.len(), found[0].duration_us()), (1, 100_000));
        assert!(found[0].mixes());
        // Again: it stays as it is, whatever comes.
        assert_eq!(sources.load(piece(1, 9, 4, 1)), Ok(()));
        assert!(sources.loading.is_empty());
    }

    #[test]
    fn pieces_that_do_not_fit_are_refused() {
        let mut sources = Sources::default();
        assert_eq!(sources.load(piece(1, 5, 2, 3)), Err(FailReason::Invalid));
        sources.load(piece(1, 5, 0, 2)).unwrap();
        assert_eq!(sources.load(piece(1, 5, 3, 2)), Err(FailReason::Invalid));
        assert_eq!(sources.load(piece(1, 5, 2, 3)), Err(FailReason::Invalid));
        let video = SourceLoad {
            codec: CodecId::Other,
            ..piece(2, 1, 0, 1)
        };
        assert_eq!(sources.load(video), Err(FailReason::Invalid));
        for number in 10..18 {
            sources.load(piece(number, 2, 0, 1)).unwrap();
        }
        assert_eq!(
            sources.load(piece(18, 2, 0, 1)),
            Err(FailReason::NoCapacity)
        );
    }

    #[test]
    fn the_oldest_that_nobody_plays_gives_way() {
        let mut sources = Sources::default();
        let frames = (SOURCE_BYTES_MAX / 166) as u32;
        let each = frames as usize * 164;
        let fit = (SOURCES_BYTES_MAX / each) as u64;
        for number in 0..fit {
            sources.load(piece(number, frames, 0, frames)).unwrap();
        }
        let playing = sources.of(&play(0)).unwrap();
        sources.load(piece(1_000, frames, 0, frames)).unwrap();
        assert!(sources.of(&play(0)).is_some() && sources.of(&play(1)).is_none());
        assert!(sources.of(&play(2)).is_some() && sources.of(&play(1_000)).is_some());
        drop(playing);
        let too_large = piece(2_000, 12_000, 0, 12_000);
        assert_eq!(sources.load(too_large), Err(FailReason::NoCapacity));
    }
}
