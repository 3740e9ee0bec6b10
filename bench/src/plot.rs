//! The results as bars in a PNG.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_8X13;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::Drawable;
use embedded_graphics::primitives::{Primitive, PrimitiveStyle, Rectangle};
use embedded_graphics::text::Text;

use crate::results::{Results, Spread, quantity};

const WIDTH: usize = 960;
const MARGIN: i32 = 12;
const ROW: i32 = 24;
const TITLE: i32 = 34;
/// Names stand left of this, bars right of it.
const BARS_AT: i32 = 230;
/// Room for the number behind the longest bar.
const NUMBER: i32 = 190;

const INK: Rgb888 = Rgb888::new(40, 40, 40);
const GREY: Rgb888 = Rgb888::new(170, 178, 189);
const BLUE: Rgb888 = Rgb888::new(31, 90, 160);
const WHISKER: Rgb888 = Rgb888::new(220, 120, 30);

/// What is drawn: title, quantity, divisor.
const PANELS: &[(&str, &str, f64)] = &[
    ("edge of loss, thousand packets/s", quantity::EDGE, 1000.0),
    (
        "goodput at 1.5 x the edge, thousand packets/s",
        quantity::OVERLOAD,
        1000.0,
    ),
    ("CPU a packet, us", quantity::CPU, 1.0),
    (
        "latency p99 at half of rtpengine's edge, ms",
        quantity::P99,
        1.0,
    ),
    ("call set-ups a second", quantity::SETUPS, 1.0),
    ("memory a call, KiB", quantity::MEMORY, 1.0),
];

struct Bar {
    name: String,
    ours: bool,
    spread: Spread,
    at_least: bool,
}

struct Panel {
    title: String,
    bars: Vec<Bar>,
}

struct Picture {
    height: usize,
    pixels: Vec<u8>,
}

impl OriginDimensions for Picture {
    fn size(&self) -> Size {
        Size::new(WIDTH as u32, self.height as u32)
    }
}

impl DrawTarget for Picture {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Self::Error>
    where
        I: IntoIterator<Item = Pixel<Self::Color>>,
    {
        for Pixel(at, colour) in pixels {
            let (Ok(x), Ok(y)) = (usize::try_from(at.x), usize::try_from(at.y)) else {
                continue;
            };
            if x < WIDTH && y < self.height {
                let at = (y * WIDTH + x) * 3;
                self.pixels[at..at + 3].copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

/// Draws all panels that the results have values for.
///
/// # Errors
/// The file cannot be written.
pub fn draw(results: &Results, path: &Path) -> Result<()> {
    let panels = panels(results);
    let rows: usize = panels.iter().map(|panel| panel.bars.len()).sum();
    let height = 2 * MARGIN + TITLE * (panels.len() as i32 + 1) + ROW * rows as i32;
    let mut picture = Picture {
        height: height as usize,
        pixels: vec![255; WIDTH * height as usize * 3],
    };
    let headline = format!(
        "trunkline-bench {}, {}: bars are medians, the orange line spans all rounds",
        results.bench, results.date
    );
    let mut top = MARGIN;
    write(&mut picture, MARGIN, top + 14, &headline);
    top += TITLE;
    for panel in &panels {
        top = draw_panel(&mut picture, panel, top);
    }
    save(&picture, path)
}

fn panels(results: &Results) -> Vec<Panel> {
    let mut rigs: Vec<&str> = Vec::new();
    for series in &results.series {
        if !rigs.contains(&series.rig.as_str()) {
            rigs.push(&series.rig);
        }
    }
    let mut panels = Vec::new();
    for (title, quantity, by) in PANELS {
        for rig in &rigs {
            let of = results.series.iter();
            let bars: Vec<_> = of
                .filter(|series| series.rig == *rig && series.quantity == *quantity)
                .filter_map(|series| {
                    let spread =
                        Spread::of(series.rounds.iter().flatten().map(|value| value / by))?;
                    Some(Bar {
                        name: series.who.clone(),
                        ours: series.who.starts_with("trunkline"),
                        spread,
                        at_least: series.at_least,
                    })
                })
                .collect();
            if !bars.is_empty() {
                panels.push(Panel {
                    title: format!("{rig}: {title}"),
                    bars,
                });
            }
        }
    }
    panels
}

fn draw_panel(picture: &mut Picture, panel: &Panel, top: i32) -> i32 {
    write(picture, MARGIN, top + 20, &panel.title);
    let longest = panel
        .bars
        .iter()
        .map(|bar| bar.spread.highest)
        .fold(f64::MIN_POSITIVE, f64::max);
    let room = WIDTH as i32 - BARS_AT - NUMBER;
    let length = |value: f64| (value / longest * f64::from(room)) as i32;
    let mut top = top + TITLE;
    for bar in &panel.bars {
        write(picture, MARGIN, top + 14, &bar.name);
        let colour = if bar.ours { BLUE } else { GREY };
        fill(
            picture,
            (BARS_AT, top),
            (length(bar.spread.median).max(1), 16),
            colour,
        );
        let (from, to) = (length(bar.spread.lowest), length(bar.spread.highest));
        fill(
            picture,
            (BARS_AT + from, top + 7),
            ((to - from).max(1), 2),
            WHISKER,
        );
        let bound = if bar.at_least { ">= " } else { "" };
        let number = format!("{bound}{}", figures(bar.spread.median));
        write(
            picture,
            BARS_AT + length(bar.spread.highest) + 8,
            top + 13,
            &number,
        );
        top += ROW;
    }
    top
}

fn figures(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn write(picture: &mut Picture, left: i32, base: i32, text: &str) {
    let style = MonoTextStyle::new(&FONT_8X13, INK);
    let Ok(_) = Text::new(text, Point::new(left, base), style).draw(picture);
}

fn fill(
    picture: &mut Picture,
    (left, top): (i32, i32),
    (width, height): (i32, i32),
    colour: Rgb888,
) {
    let size = Size::new(width as u32, height as u32);
    let Ok(()) = Rectangle::new(Point::new(left, top), size)
        .into_styled(PrimitiveStyle::with_fill(colour))
        .draw(picture);
}

fn save(picture: &Picture, path: &Path) -> Result<()> {
    let name = || path.display().to_string();
    let file = BufWriter::new(File::create(path).with_context(name)?);
    let mut encoder = png::Encoder::new(file, WIDTH as u32, picture.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().with_context(name)?;
    writer
        .write_image_data(&picture.pixels)
        .with_context(name)?;
    writer.finish().with_context(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_bars_are_larger_values() {
        let mut results = Results::new("relay", String::new());
        for (who, edge) in [("trunkline", 300_000.0), ("rtpengine", 100_000.0)] {
            results.add(("inline", who, quantity::EDGE), 0, edge);
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plot.png");
        draw(&results, &path).unwrap();
        let mut reader = png::Decoder::new(std::io::BufReader::new(File::open(&path).unwrap()))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let count = |colour: Rgb888| {
            let wanted = [colour.r(), colour.g(), colour.b()];
            pixels.chunks(3).filter(|pixel| *pixel == wanted).count()
        };
        let (ours, theirs) = (count(BLUE), count(GREY));
        assert!(theirs > 1_000 && ours > 2 * theirs, "{ours} {theirs}");
    }
}
