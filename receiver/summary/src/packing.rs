//! Numbers in as few bytes as they need, exactly.
//!
//! ```text
//! count     LEB128: seven bits a byte, the lowest first
//! number    of whole hundredths: their count, its sign in bit 1, as LEB128 of an even number
//!           any other: 1 | f64, little-endian
//! ```
//!
//! Most measured values have two decimals or none, and most hours of them differ little: 61.25 takes
//! three bytes.

/// Greater numbers of hundredths take more bytes than an f64.
const HUNDREDTHS_BELOW: f64 = (1_u64 << 53) as f64;
/// That the bits of an f64 follow.
const BITS_FOLLOW: u64 = 1;

/// Appends a count.
pub fn pack_count(mut count: u64, bytes: &mut Vec<u8>) {
    while count >= 0x80 {
        bytes.push(count as u8 | 0x80);
        count >>= 7;
    }
    bytes.push(count as u8);
}

/// Appends a number.
pub fn pack_number(number: f64, bytes: &mut Vec<u8>) {
    let hundredths = (number * 100.0).round();
    // No number of hundredths is a minus zero.
    let is_exact = hundredths.abs() < HUNDREDTHS_BELOW
        && (hundredths / 100.0 + 0.0).to_bits() == number.to_bits();
    if is_exact {
        let is_negative = u64::from(hundredths < 0.0);
        pack_count((hundredths.abs() as u64) << 2 | is_negative << 1, bytes);
    } else {
        pack_count(BITS_FOLLOW, bytes);
        bytes.extend(number.to_le_bytes());
    }
}

/// What is left of packed bytes.
pub struct Unpacker<'a>(pub &'a [u8]);

impl Unpacker<'_> {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So many bytes as they are.
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    /// A count.
    pub fn count(&mut self) -> Option<u64> {
        let mut count = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let [byte] = self.take()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            count |= bits << shift;
            if byte < 0x80 {
                return Some(count);
            }
        }
        None
    }

    /// A number.
    pub fn number(&mut self) -> Option<f64> {
        match self.count()? {
            BITS_FOLLOW => self.take().map(f64::from_le_bytes),
            packed if packed & 1 == 0 => {
                let hundredths = (packed >> 2) as f64;
                let signed = if packed & 2 == 0 {
                    hundredths
                } else {
                    -hundredths
                };
                Some(signed / 100.0)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(number: f64) -> Vec<u8> {
        let mut bytes = Vec::new();
        pack_number(number, &mut bytes);
        bytes
    }

    #[test]
    fn numbers_take_what_they_need() {
        for (number, bytes) in [
            (0.0, 1),
            (-0.0, 9),
            (0.25, 1),
            (4.98, 2),
            (-4.98, 2),
            (61.25, 3),
            (100.0, 3),
            (1e9, 6),
            (0.1 + 0.2, 9),
            (1.0 / 3.0, 9),
            (1e290, 9),
            (f64::MAX, 9),
            (f64::MIN_POSITIVE, 9),
        ] {
            let of = packed(number);
            assert_eq!(of.len(), bytes, "{number}");
            let read = Unpacker(&of).number().unwrap();
            assert_eq!(read.to_bits(), number.to_bits());
        }
    }

    #[test]
    fn what_was_not_packed_is_not_read() {
        for bytes in [&[][..], &[0x80], &[1, 0, 0], &[3], &[0xff; 10], &[0xff; 11]] {
            assert_eq!(Unpacker(bytes).number(), None, "{bytes:?}");
        }
        let mut most = Vec::new();
        pack_count(u64::MAX, &mut most);
        assert_eq!(Unpacker(&most).count(), Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn every_number_is_read_to_the_bit(
            number in prop_oneof![
                any::<f64>(),
                (any::<i64>()).prop_map(|hundredths| hundredths as f64 / 100.0),
                (-1_000_000_i32..1_000_000).prop_map(|hundredths| f64::from(hundredths) / 100.0),
                -1e6..1e6,
            ],
            count: u64,
        ) {
            let mut bytes = packed(number);
            pack_count(count, &mut bytes);
            let mut unpacker = Unpacker(&bytes);
            prop_assert_eq!(unpacker.number().map(f64::to_bits), Some(number.to_bits()));
            prop_assert_eq!(unpacker.count(), Some(count));
            prop_assert!(unpacker.is_empty());
        }

        /// Any bytes are read, or not, and never panic.
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut unpacker = Unpacker(&bytes);
            while unpacker.number().is_some() {}
        }
    }
}
