//! FLAC (RFC 9639), 16 bits, in blocks of fixed length, so that nothing but a block is kept.

use crate::render::{Progress, render};
use crate::sound_file::Written;
use crate::{AudioError, Plan};
use flacenc::bitsink::ByteSink;
use flacenc::component::{BitRepr, StreamInfo};
use flacenc::config;
use flacenc::error::{Verified, Verify};
use flacenc::source::{Fill, FrameBuf};
use md5::{Digest, Md5};
use std::io::Write;
use trunkline_sn3::Capture;

const BLOCK_SAMPLES: usize = 4_096;
/// The encoder's smallest block.
const BLOCK_SAMPLES_MIN: u64 = 32;
/// Where the digest of the samples stands in the file: known only at the end.
const DIGEST_OFFSET: u64 = 26;
const RATE_MAX_HZ: u32 = 655_350;

/// Writes the whole FLAC. The digest of its samples is returned for the caller to put in place;
/// zeros, which mean "unknown", stand there until then.
pub(crate) fn write_flac(
    capture: &Capture,
    plan: &Plan,
    output: &mut dyn Write,
    progress: &mut Progress<'_>,
) -> Result<Written, AudioError> {
    if plan.rate_hz > RATE_MAX_HZ {
        return Err(AudioError::Option("FLAC ends at 655,350 Hz".to_owned()));
    }
    let block = block_samples(plan.samples);
    let mut encoder = BlockEncoder::new(plan, block)?;
    output.write_all(&header(plan, block))?;
    let mut sink = |channels: &[Vec<i16>]| encoder.take(channels, output);
    let counts = render(capture, plan, &mut sink, progress)?;
    encoder.write_block(output)?;
    output.flush()?;
    let digest = encoder.digest.finalize().to_vec();
    Ok(Written {
        counts,
        patch: Some((DIGEST_OFFSET, digest)),
    })
}

/// A block length that leaves no last block too short for the encoder.
fn block_samples(total: u64) -> usize {
    let fits = |block: &usize| {
        let rest = total % *block as u64;
        rest == 0 || rest >= BLOCK_SAMPLES_MIN
    };
    let mut lengths = (BLOCK_SAMPLES / 2..=BLOCK_SAMPLES).rev().step_by(16);
    lengths.find(fits).unwrap_or(BLOCK_SAMPLES)
}

/// Marker and stream information (sections 6 and 8.2).
fn header(plan: &Plan, block: usize) -> Vec<u8> {
    let mut header = b"fLaC".to_vec();
    // The last metadata block, of type 0, 34 bytes long.
    header.extend([0x80, 0, 0, 34]);
    let block = (block as u16).to_be_bytes();
    header.extend([block, block].concat());
    header.extend([0; 6]);
    let fields = u64::from(plan.rate_hz) << 44
        | u64::from(plan.channels() - 1) << 41
        | 15 << 36
        | plan.samples & 0xF_FFFF_FFFF;
    header.extend(fields.to_be_bytes());
    header.extend([0; 16]);
    header
}

struct BlockEncoder {
    config: Verified<config::Encoder>,
    info: StreamInfo,
    block: Vec<i32>,
    /// Samples of all channels in a whole block.
    whole: usize,
    channels: usize,
    number: usize,
    digest: Md5,
    bytes: Vec<u8>,
}

impl BlockEncoder {
    fn new(plan: &Plan, block: usize) -> Result<Self, AudioError> {
        let refused = |error: &dyn std::fmt::Display| AudioError::Option(format!("FLAC: {error}"));
        let channels = usize::from(plan.channels());
        let info = StreamInfo::new(plan.rate_hz as usize, channels, 16);
        let config = config::Encoder::default().into_verified();
        Ok(Self {
            config: config.map_err(|(_, error)| refused(&error))?,
            info: info.map_err(|error| refused(&error))?,
            block: Vec::with_capacity(block * channels),
            whole: block * channels,
            channels,
            number: 0,
            digest: Md5::new(),
            bytes: Vec::new(),
        })
    }

    fn take(&mut self, channels: &[Vec<i16>], output: &mut dyn Write) -> Result<(), AudioError> {
        let count = channels.first().map_or(0, Vec::len);
        self.bytes.clear();
        for index in 0..count {
            for channel in channels {
                self.bytes.extend(channel[index].to_le_bytes());
                self.block.push(i32::from(channel[index]));
            }
            if self.block.len() == self.whole {
                self.write_block(output)?;
            }
        }
        self.digest.update(&self.bytes);
        Ok(())
    }

    fn write_block(&mut self, output: &mut dyn Write) -> Result<(), AudioError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let frame = self.encode()?;
        output.write_all(&frame)?;
        self.number += 1;
        self.block.clear();
        Ok(())
    }

    fn encode(&self) -> Result<Vec<u8>, AudioError> {
        let refused = |error: &dyn std::fmt::Display| AudioError::Option(format!("FLAC: {error}"));
        let samples = self.block.len() / self.channels;
        let size = samples.max(BLOCK_SAMPLES_MIN as usize);
        let mut buffer =
            FrameBuf::with_size(self.channels, size).map_err(|error| refused(&error))?;
        buffer.resize(samples);
        buffer
            .fill_interleaved(&self.block)
            .map_err(|error| refused(&error))?;
        let frame =
            flacenc::encode_fixed_size_frame(&self.config, &buffer, self.number, &self.info)
                .map_err(|error| refused(&error))?;
        let mut sink = ByteSink::new();
        frame.write(&mut sink).map_err(|error| refused(&error))?;
        Ok(sink.into_inner())
    }
}
