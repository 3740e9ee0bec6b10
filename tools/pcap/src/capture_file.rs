//! pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng): frames with their times.

/// Longest frame that is believed.
const FRAME_MAX: usize = 256 * 1024;
/// Longest pcapng block that is believed.
const BLOCK_MAX: usize = 16 * 1024 * 1024;
/// Records that must follow each other before a place behind a damage is believed.
const CHAIN: usize = 3;
/// How far behind a damage the next record is looked for, bytes.
const SEARCH_MAX: usize = 64 * 1024 * 1024;
/// How far from the last good record's time the next one is believed, s.
const APART_MAX_S: u32 = 24 * 3600;
/// Interfaces of one file that are remembered.
const INTERFACES_MAX: usize = 4_096;

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const OBSOLETE_PACKET: u32 = 2;
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_OFFSET: u16 = 14;

/// One captured frame.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// ns since 1970.
    pub utc_ns: u64,
    /// LINKTYPE of the interface.
    pub link_type: u32,
    /// From the link layer on, as much as was captured.
    pub bytes: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
struct Interface {
    link_type: u32,
    /// ns of one tick, as a fraction.
    numerator: u64,
    denominator: u64,
    offset_s: i64,
}

/// Reads records one after the other.
#[derive(Debug)]
pub struct CaptureFile<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
    /// pcap: the one interface.
    classic: Option<Interface>,
    interfaces: Vec<Interface>,
    damage: Option<(u64, &'static str)>,
    /// Frames of which only a part was captured: the first one's place, how many.
    shortened: Option<(u64, u64)>,
    /// Seconds of the last good record (pcap).
    last_seconds: Option<u32>,
}

impl<'a> CaptureFile<'a> {
    /// By the file's magic; `None` when it is neither.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut file = Self {
            bytes,
            at: 0,
            big_endian: false,
            classic: None,
            interfaces: Vec::new(),
            damage: None,
            shortened: None,
            last_seconds: None,
        };
        let magic = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        if magic == SECTION_HEADER {
            return Some(file);
        }
        let (big_endian, tick_ns) = match magic {
            0xA1B2_C3D4 => (false, 1_000),
            0xA1B2_3C4D => (false, 1),
            0xD4C3_B2A1 => (true, 1_000),
            0x4D3C_B2A1 => (true, 1),
            _ => return None,
        };
        file.big_endian = big_endian;
        file.at = 24;
        let link_type = file.u32_at(20)? & 0x0FFF_FFFF;
        file.classic = Some(Interface {
            link_type,
            numerator: tick_ns,
            denominator: 1,
            offset_s: 0,
        });
        Some(file)
    }

    /// The first place that could not be read, and why. Reading goes on behind it where records
    /// are found again.
    pub fn damage(&self) -> Option<(u64, &'static str)> {
        self.damage
    }

    /// Frames that are longer than what was captured of them (a capture's snap length): the place of
    /// the first, and how many.
    pub fn shortened(&self) -> Option<(u64, u64)> {
        self.shortened
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        let word = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.big_endian {
            u32::from_be_bytes(word)
        } else {
            u32::from_le_bytes(word)
        })
    }

    fn u16_at(&self, at: usize) -> Option<u16> {
        let word = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.big_endian {
            u16::from_be_bytes(word)
        } else {
            u16::from_le_bytes(word)
        })
    }

    /// Notes a damage and goes to the next place that looks like records; false when there is none.
    fn skip(&mut self, what: &'static str) -> bool {
        self.damage.get_or_insert((self.at as u64, what));
        let from = self.at + 1;
        let until = self.bytes.len().min(from.saturating_add(SEARCH_MAX));
        let found = (from..until).find(|&at| match self.classic {
            Some(interface) => self.chains(at, interface),
            None => self.blocks(at),
        });
        self.at = found.unwrap_or(self.bytes.len());
        found.is_some()
    }

    /// The length and the seconds of a pcap record whose header can be believed.
    fn believable(&self, at: usize, interface: Interface) -> Option<(usize, u32)> {
        let seconds = self.u32_at(at)?;
        let fraction = u64::from(self.u32_at(at + 4)?) * interface.numerator;
        let (length, whole) = (self.u32_at(at + 8)?, self.u32_at(at + 12)?);
        let near = self
            .last_seconds
            .is_none_or(|last| seconds.abs_diff(last) <= APART_MAX_S);
        let sound = near
            && fraction < 1_000_000_000
            && length > 0
            && length <= whole
            && (whole as usize) <= FRAME_MAX;
        sound.then_some((length as usize, seconds))
    }

    /// Whether believable records follow each other from here, to the end at least.
    fn chains(&self, mut at: usize, interface: Interface) -> bool {
        for count in 0..CHAIN {
            if at == self.bytes.len() {
                return count > 0;
            }
            match self.believable(at, interface) {
                Some((length, _)) if at + 16 + length <= self.bytes.len() => at += 16 + length,
                _ => return false,
            }
        }
        true
    }

    /// Whether a block of a kind that holds packets or describes them stands here.
    fn blocks(&self, at: usize) -> bool {
        let known = [SECTION_HEADER, INTERFACE, SIMPLE_PACKET, ENHANCED_PACKET];
        let Some(kind) = self.u32_at(at).filter(|kind| known.contains(kind)) else {
            return false;
        };
        kind == SECTION_HEADER || self.block_length(at).is_ok()
    }

    /// The length of the block, which it says at both its ends.
    fn block_length(&self, at: usize) -> Result<usize, &'static str> {
        let Some(length) = self.u32_at(at + 4) else {
            return Err("block header is cut");
        };
        let length = length as usize;
        if !(12..=BLOCK_MAX).contains(&length) || !length.is_multiple_of(4) {
            return Err("impossible block length");
        }
        if self.bytes.len() - at < length {
            return Err("block is cut");
        }
        match self.u32_at(at + length - 4) {
            Some(again) if again as usize == length => Ok(length),
            _ => Err("the block's two lengths differ"),
        }
    }

    fn next_classic(&mut self, interface: Interface) -> Option<Record<'a>> {
        loop {
            let at = self.at;
            let header = (|| {
                let seconds = self.u32_at(at)?;
                let ticks = self.u32_at(at + 4)?;
                Some((seconds, ticks, self.u32_at(at + 8)?, self.u32_at(at + 12)?))
            })();
            let what = match header {
                None if at >= self.bytes.len() => return None,
                None => "record header is cut",
                Some((.., length, _)) if length as usize > FRAME_MAX => "impossible record length",
                Some((seconds, ticks, length, whole)) => {
                    let end = at + 16 + length as usize;
                    if let Some(bytes) = self.bytes.get(at + 16..end) {
                        self.at = end;
                        self.last_seconds = Some(seconds);
                        if length < whole {
                            self.note_shortened(at);
                        }
                        let fraction = u64::from(ticks) * interface.numerator;
                        return Some(Record {
                            utc_ns: u64::from(seconds) * 1_000_000_000 + fraction,
                            link_type: interface.link_type,
                            bytes,
                        });
                    }
                    "record is cut"
                }
            };
            if !self.skip(what) {
                return None;
            }
        }
    }

    fn note_shortened(&mut self, at: usize) {
        let (_, count) = self.shortened.get_or_insert((at as u64, 0));
        *count += 1;
    }

    /// Reads blocks up to the next packet.
    fn next_block(&mut self) -> Option<Record<'a>> {
        while self.at < self.bytes.len() {
            let at = self.at;
            if self.u32_at(at) == Some(SECTION_HEADER) {
                self.big_endian = false;
                match self.u32_at(at + 8) {
                    Some(BYTE_ORDER) => {}
                    Some(order) if order.swap_bytes() == BYTE_ORDER => self.big_endian = true,
                    _ => {
                        self.skip("section without byte order");
                        continue;
                    }
                }
                self.interfaces.clear();
            }
            let length = match self.block_length(at) {
                Ok(length) => length,
                Err(what) => {
                    self.skip(what);
                    continue;
                }
            };
            let kind = self.u32_at(at)?;
            let end = at + length - 4;
            let record = match kind {
                INTERFACE => {
                    self.note_interface(at, end);
                    None
                }
                ENHANCED_PACKET | OBSOLETE_PACKET => self.packet(kind, at, end),
                SIMPLE_PACKET => self.simple_packet(at, end),
                _ => None,
            };
            self.at = at + length;
            if kind == ENHANCED_PACKET && self.u32_at(at + 20) < self.u32_at(at + 24) {
                self.note_shortened(at);
            }
            if record.is_some() {
                return record;
            }
        }
        None
    }

    fn note_interface(&mut self, at: usize, end: usize) {
        let mut interface = Interface {
            link_type: u32::from(self.u16_at(at + 8).unwrap_or(u16::MAX)),
            numerator: 1_000,
            denominator: 1,
            offset_s: 0,
        };
        let mut option = at + 16;
        while option + 4 <= end {
            let (Some(code), Some(length)) = (self.u16_at(option), self.u16_at(option + 2)) else {
                break;
            };
            let value = option + 4;
            match code {
                0 => break,
                OPTION_RESOLUTION if length == 1 => {
                    let resolution = self.bytes.get(value).copied().unwrap_or(6);
                    let exponent = u32::from(resolution & 0x7F);
                    let ticks = if resolution & 0x80 == 0 {
                        10_u64.checked_pow(exponent)
                    } else {
                        1_u64.checked_shl(exponent)
                    };
                    interface.numerator = 1_000_000_000;
                    interface.denominator = ticks.unwrap_or(u64::MAX).max(1);
                }
                OPTION_OFFSET if length == 8 => {
                    let (low, high) = (self.u32_at(value), self.u32_at(value + 4));
                    let (low, high) = if self.big_endian {
                        (high, low)
                    } else {
                        (low, high)
                    };
                    let offset = u64::from(high.unwrap_or(0)) << 32 | u64::from(low.unwrap_or(0));
                    interface.offset_s = offset as i64;
                }
                _ => {}
            }
            option = value + usize::from(length).next_multiple_of(4);
        }
        if self.interfaces.len() < INTERFACES_MAX {
            self.interfaces.push(interface);
        }
    }

    fn packet(&self, kind: u32, at: usize, end: usize) -> Option<Record<'a>> {
        let index = if kind == ENHANCED_PACKET {
            self.u32_at(at + 8)? as usize
        } else {
            usize::from(self.u16_at(at + 8)?)
        };
        let interface = self.interfaces.get(index)?;
        let ticks = u64::from(self.u32_at(at + 12)?) << 32 | u64::from(self.u32_at(at + 16)?);
        let length = self.u32_at(at + 20)? as usize;
        let start = at + 28;
        let bytes = self.bytes.get(start..start.checked_add(length)?.min(end))?;
        let ns =
            u128::from(ticks) * u128::from(interface.numerator) / u128::from(interface.denominator);
        let ns = i128::try_from(ns).ok()? + i128::from(interface.offset_s) * 1_000_000_000;
        Some(Record {
            utc_ns: u64::try_from(ns).unwrap_or(0),
            link_type: interface.link_type,
            bytes,
        })
    }

    fn simple_packet(&self, at: usize, end: usize) -> Option<Record<'a>> {
        let interface = self.interfaces.first()?;
        let length = self.u32_at(at + 8)? as usize;
        let start = at + 12;
        Some(Record {
            utc_ns: 0,
            link_type: interface.link_type,
            bytes: self.bytes.get(start..start.checked_add(length)?.min(end))?,
        })
    }
}

impl<'a> Iterator for CaptureFile<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        match self.classic {
            Some(interface) => self.next_classic(interface),
            None => self.next_block(),
        }
    }
}
