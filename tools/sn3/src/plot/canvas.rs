//! A picture in memory.

use anyhow::Result;
use std::io::Write;
use std::ops::Range;

/// Red, green, blue.
pub(crate) type Colour = [u8; 3];

/// What can be written: rows of 3 pixels from above, the left one in the highest bit.
const GLYPHS: [(char, [u8; 5]); 17] = [
    ('0', [7, 5, 5, 5, 7]),
    ('1', [2, 6, 2, 2, 7]),
    ('2', [7, 1, 7, 4, 7]),
    ('3', [7, 1, 7, 1, 7]),
    ('4', [5, 5, 7, 1, 1]),
    ('5', [7, 4, 7, 1, 7]),
    ('6', [7, 4, 7, 5, 7]),
    ('7', [7, 1, 2, 2, 2]),
    ('8', [7, 5, 7, 5, 7]),
    ('9', [7, 5, 7, 1, 7]),
    (':', [0, 2, 0, 2, 0]),
    ('*', [5, 2, 7, 2, 5]),
    ('#', [5, 7, 5, 7, 5]),
    ('A', [2, 5, 7, 5, 5]),
    ('B', [6, 5, 6, 5, 6]),
    ('C', [7, 4, 4, 4, 7]),
    ('D', [6, 5, 5, 5, 6]),
];
/// Pixels of one dot.
const DOT: usize = 2;

pub(crate) struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    pub(crate) fn new(width: usize, height: usize, background: Colour) -> Self {
        Self {
            width,
            height,
            pixels: background.repeat(width * height),
        }
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Paints a rectangle; what lies outside the picture is left out.
    pub(crate) fn fill(&mut self, columns: Range<usize>, rows: Range<usize>, colour: Colour) {
        let columns = columns.start.min(self.width)..columns.end.min(self.width);
        for row in rows.start..rows.end.min(self.height) {
            for column in columns.clone() {
                let at = (row * self.width + column) * 3;
                self.pixels[at..at + 3].copy_from_slice(&colour);
            }
        }
    }

    /// Pixels that a text takes.
    pub(crate) fn text_width(text: &str) -> usize {
        text.chars().count() * 4 * DOT
    }

    /// Writes digits, keys and colons; other characters are blanks.
    pub(crate) fn text(&mut self, left: usize, top: usize, text: &str, colour: Colour) {
        for (index, wanted) in text.chars().enumerate() {
            let Some((_, rows)) = GLYPHS.iter().find(|(glyph, _)| *glyph == wanted) else {
                continue;
            };
            for (row, bits) in rows.iter().enumerate() {
                for column in (0..3).filter(|column| bits >> (2 - column) & 1 == 1) {
                    let x = left + (index * 4 + column) * DOT;
                    let y = top + row * DOT;
                    self.fill(x..x + DOT, y..y + DOT, colour);
                }
            }
        }
    }

    pub(crate) fn write_png(&self, output: &mut dyn Write) -> Result<()> {
        let mut encoder = png::Encoder::new(output, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(())
    }
}
