//! Opus in Ogg (RFC 7845): packets of 20 ms, pages of a second.

use crate::render::{Progress, render};
use crate::sound_file::Written;
use crate::{AudioError, Plan};
use ogg::writing::{PacketWriteEndInfo, PacketWriter};
use std::io::Write;
use trunkline_codec::OpusFileEncoder;
use trunkline_sn3::Capture;

/// Rates that Opus takes, Hz.
pub(crate) const RATES_HZ: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];
const GRANULES_A_SECOND: u64 = 48_000;
const SERIAL: u32 = 0x534E_3301;
const PACKETS_A_PAGE: u64 = 50;

/// Writes the whole file at `bits_per_second` (all channels together).
pub(crate) fn write_ogg_opus(
    capture: &Capture,
    plan: &Plan,
    bits_per_second: u32,
    output: &mut dyn Write,
    progress: &mut Progress<'_>,
) -> Result<Written, AudioError> {
    if !RATES_HZ.contains(&plan.rate_hz) {
        return Err(AudioError::Option(format!(
            "Opus does not take {} Hz; choose 8000, 12000, 16000, 24000 or 48000",
            plan.rate_hz,
        )));
    }
    if plan.channels() > 2 {
        return Err(AudioError::Option(format!(
            "Ogg Opus is written with one or two channels, not {}; WAV and FLAC hold more",
            plan.channels(),
        )));
    }
    let encoder = OpusFileEncoder::new(plan.rate_hz, plan.channels(), bits_per_second);
    let encoder = encoder.map_err(|error| AudioError::Option(error.to_string()))?;
    let mut file = File::begin(plan, encoder, output)?;
    let mut sink = |channels: &[Vec<i16>]| file.take(channels);
    let counts = render(capture, plan, &mut sink, progress)?;
    file.finish()?;
    output.flush()?;
    Ok(Written {
        counts,
        patch: None,
    })
}

struct File<'w> {
    pages: PacketWriter<'w, &'w mut dyn Write>,
    encoder: OpusFileEncoder,
    channels: usize,
    /// Samples of one packet, all channels interleaved.
    packet: Vec<i16>,
    packet_samples: usize,
    /// Granules that the decoder throws away at the start.
    skip: u64,
    granules_a_packet: u64,
    total_granules: u64,
    packets: u64,
    /// Encoded but not yet written: the last one of all ends the stream.
    waiting: Option<Vec<u8>>,
}

impl<'w> File<'w> {
    fn begin(
        plan: &Plan,
        encoder: OpusFileEncoder,
        output: &'w mut dyn Write,
    ) -> Result<Self, AudioError> {
        let channels = usize::from(plan.channels());
        let factor = GRANULES_A_SECOND / u64::from(plan.rate_hz);
        let skip = u64::from(encoder.lookahead()) * factor;
        let mut pages = PacketWriter::new(output);
        let mut head = b"OpusHead\x01".to_vec();
        head.push(channels as u8);
        head.extend((skip as u16).to_le_bytes());
        head.extend(plan.rate_hz.to_le_bytes());
        head.extend([0, 0, 0]);
        pages.write_packet(head, SERIAL, PacketWriteEndInfo::EndPage, 0)?;
        let vendor = b"trunkline";
        let mut tags = b"OpusTags".to_vec();
        tags.extend((vendor.len() as u32).to_le_bytes());
        tags.extend(vendor);
        tags.extend(0_u32.to_le_bytes());
        pages.write_packet(tags, SERIAL, PacketWriteEndInfo::EndPage, 0)?;
        Ok(Self {
            pages,
            encoder,
            channels,
            packet: Vec::new(),
            packet_samples: plan.rate_hz as usize / 50 * channels,
            skip,
            granules_a_packet: GRANULES_A_SECOND / 50,
            total_granules: plan.samples * factor,
            packets: 0,
            waiting: None,
        })
    }

    fn take(&mut self, channels: &[Vec<i16>]) -> Result<(), AudioError> {
        for index in 0..channels.first().map_or(0, Vec::len) {
            self.packet.extend(channels.iter().map(|c| c[index]));
            if self.packet.len() == self.packet_samples {
                self.encode()?;
            }
        }
        Ok(())
    }

    fn encode(&mut self) -> Result<(), AudioError> {
        let mut payload = Vec::new();
        let encoded = self.encoder.encode(&self.packet, &mut payload);
        encoded.map_err(|error| AudioError::Option(error.to_string()))?;
        self.packet.clear();
        if let Some(earlier) = self.waiting.replace(payload) {
            self.write(earlier, false)?;
        }
        Ok(())
    }

    fn write(&mut self, payload: Vec<u8>, last: bool) -> Result<(), AudioError> {
        self.packets += 1;
        let end = if last {
            PacketWriteEndInfo::EndStream
        } else if self.packets.is_multiple_of(PACKETS_A_PAGE) {
            PacketWriteEndInfo::EndPage
        } else {
            PacketWriteEndInfo::NormalPacket
        };
        // The last granule says where the sound ends within the last packet (section 4.4).
        let heard = self.packets * self.granules_a_packet;
        let granule = if last {
            heard.min(self.skip + self.total_granules)
        } else {
            heard
        };
        self.pages.write_packet(payload, SERIAL, end, granule)?;
        Ok(())
    }

    /// Pushes out what the encoder still holds back.
    fn finish(mut self) -> Result<(), AudioError> {
        let wanted = self.skip + self.total_granules;
        let waiting = u64::from(self.waiting.is_some());
        let mut coded = (self.packets + waiting) * self.granules_a_packet;
        while coded < wanted || self.waiting.is_none() {
            self.packet
                .resize(self.packet_samples.max(self.channels), 0);
            self.encode()?;
            coded += self.granules_a_packet;
        }
        match self.waiting.take() {
            Some(payload) => self.write(payload, true),
            None => Ok(()),
        }
    }
}
