//! G.711 by the tables' construction rule, apart from the product's own.

/// The linear value of a mu-law octet, scaled to 16 bits.
#[must_use]
pub fn mu_law(octet: u8) -> i16 {
    let bits = !octet;
    let segment = (bits >> 4) & 7;
    let step = i32::from(bits & 15);
    let magnitude = ((2 * step + 33) << segment) - 33;
    let value = magnitude * 4;
    clamp(if bits & 0x80 == 0 { value } else { -value })
}

/// The linear value of an A-law octet, scaled to 16 bits.
#[must_use]
pub fn a_law(octet: u8) -> i16 {
    let bits = octet ^ 0x55;
    let segment = (bits >> 4) & 7;
    let step = i32::from(bits & 15);
    let magnitude = match segment {
        0 => 2 * step + 1,
        _ => (2 * step + 33) << (segment - 1),
    };
    let value = magnitude * 8;
    clamp(if bits & 0x80 == 0 { -value } else { value })
}

fn clamp(value: i32) -> i16 {
    i16::try_from(value).expect("G.711 fits 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(
            (mu_law(0xff), mu_law(0x7f), mu_law(0x00), mu_law(0x80)),
            (0, 0, -32124, 32124)
        );
        assert_eq!(
            (a_law(0xd5), a_law(0x55), a_law(0xaa), a_law(0x2a)),
            (8, -8, 32256, -32256)
        );
    }
}
