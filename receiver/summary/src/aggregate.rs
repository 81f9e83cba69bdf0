//! Count, sum, least and greatest of one interval; rounding.

/// What is remembered of the samples of one interval.
///
/// Packed, because a series has 89 of these and a receiver many series: 28 bytes instead of 32.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, packed(4))]
pub struct Aggregate {
    sum: f64,
    min: f64,
    max: f64,
    count: u32,
}

impl Aggregate {
    /// No sample at all.
    pub const EMPTY: Self = Self {
        sum: 0.0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        count: 0,
    };

    /// An aggregate as it was kept; `None` if no samples can have made it.
    pub fn from_parts(count: u64, sum: f64, min: f64, max: f64) -> Option<Self> {
        let finite = sum.is_finite() && min.is_finite() && max.is_finite();
        let ordered = min.total_cmp(&max).is_le();
        (count > 0 && finite && ordered).then(|| Self {
            sum,
            min,
            max,
            count: u32::try_from(count).unwrap_or(u32::MAX),
        })
    }

    /// Adds one sample.
    ///
    /// After 2^32 - 1 samples in one interval (a million a second for an hour) count and sum stand still together, so
    /// that the mean stays that of the samples counted; least and greatest go on.
    pub fn add(&mut self, value: f64) {
        if let Some(count) = self.count.checked_add(1) {
            // A lone -0.0 keeps its sign, which 0.0 + -0.0 would lose.
            self.sum = if self.count == 0 {
                value
            } else {
                self.sum + value
            };
            self.count = count;
        }
        // The total order puts -0.0 before 0.0: which came first must not show.
        let (min, max) = (self.min, self.max);
        if value.total_cmp(&min).is_lt() {
            self.min = value;
        }
        if value.total_cmp(&max).is_gt() {
            self.max = value;
        }
    }

    /// How many samples there were.
    pub fn count(&self) -> u64 {
        self.count.into()
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Their sum, added in order of arrival.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The least of them.
    pub fn min(&self) -> f64 {
        self.min
    }

    /// The greatest of them.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// Their mean, rounded to two decimals. NaN if there was none.
    pub fn avg(&self) -> f64 {
        round_to_cents(self.sum / f64::from(self.count))
    }
}

/// Rounds to two decimals exactly as Python's `round(x, 2)`: to the nearest by the exact binary value, and to the even
/// one where that is precisely half-way.
///
/// ```
/// use lizmon_summary::round_to_cents;
/// assert_eq!(round_to_cents(2.675), 2.67); // in binary it is a little less than 2.675
/// assert_eq!(round_to_cents(0.125), 0.12); // exactly half-way: to even
/// ```
pub fn round_to_cents(x: f64) -> f64 {
    // `x * 100` is off by half a unit in the last place at most: 2^-13 below 2^40. So unless the fraction is that near
    // to one half, rounding it decides as the exact product would. The whole number it gives is exact, and IEEE
    // division makes of it the f64 nearest to the decimal, which is what reading the decimal would give.
    const QUICK_BELOW: f64 = (1_u64 << 40) as f64;
    const NEAR_HALF: f64 = 1e-3;
    let cents = x * 100.0;
    if cents.abs() < QUICK_BELOW && (cents.fract().abs() - 0.5).abs() > NEAR_HALF {
        return cents.round() / 100.0;
    }
    round_by_decimal(x)
}

/// The same by way of the exact decimal expansion, which `format!` rounds half to even.
fn round_by_decimal(x: f64) -> f64 {
    const WHOLE_FROM: f64 = (1_u64 << 52) as f64;
    if !x.is_finite() || x.abs() >= WHOLE_FROM {
        return x;
    }
    // What a float prints as, a float can be read from.
    format!("{x:.2}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each of these is what CPython 3 answers to `round(x, 2)`.
    #[test]
    fn rounds_as_python_does() {
        for (x, expected) in [
            (0.0, 0.0),
            (-0.0, -0.0),
            (-0.001, -0.0),
            (0.005, 0.01),
            (-0.005, -0.01),
            (0.015, 0.01),
            (0.125, 0.12),
            (-0.125, -0.12),
            (0.375, 0.38),
            (0.625, 0.62),
            (0.875, 0.88),
            (1.005, 1.0),
            (2.675, 2.67),
            (2.5, 2.5),
            (1e-300, 0.0),
            (-5e-324, -0.0),
            (4.98, 4.98),
            (499_999_999_997.375, 499_999_999_997.38),
            (4_503_599_627_370_495.5, 4_503_599_627_370_495.5),
            (562_949_953_421_311.4, 562_949_953_421_311.4),
            (35_184_372_088_831.875, 35_184_372_088_831.88),
            (35_184_372_088_832.625, 35_184_372_088_832.62),
            (1e22, 1e22),
            (-1e290, -1e290),
        ] {
            assert_eq!(round_to_cents(x).to_bits(), f64::to_bits(expected), "{x}");
        }
    }

    #[test]
    fn half_way_goes_to_even_everywhere() {
        for eighths in (-8_001_i32..8_001).step_by(2) {
            let x = f64::from(eighths) / 8.0;
            let cents = round_to_cents(x) * 100.0;
            assert_eq!(round_to_cents(x), round_by_decimal(x), "{x}");
            // Odd eighths are half-way between cents for .125, .375, .625 and .875 alike.
            assert_eq!(cents.round() as i64 % 2, 0, "{x}");
        }
    }

    proptest! {
        #[test]
        fn the_quick_way_equals_the_exact_one(
            x in prop_oneof![
                any::<f64>(),
                -200.0..200.0,
                -1e12..1e12,
                (-1_000_000_i64..1_000_000).prop_map(|n| n as f64 / 200.0),
                (-1_000_000_i64..1_000_000, -3_i64..=3)
                    .prop_map(|(n, ulps)| f64::from_bits((n as f64 / 200.0).to_bits().wrapping_add_signed(ulps))),
            ],
        ) {
            prop_assert_eq!(round_to_cents(x).to_bits(), round_by_decimal(x).to_bits());
        }
    }

    #[test]
    fn zeros_of_both_signs_do_not_depend_on_order() {
        for values in [[0.0, -0.0], [-0.0, 0.0]] {
            let mut aggregate = Aggregate::EMPTY;
            values.into_iter().for_each(|value| aggregate.add(value));
            assert!(aggregate.min().is_sign_negative(), "{values:?}");
            assert!(aggregate.max().is_sign_positive(), "{values:?}");
        }
    }

    #[test]
    fn a_full_count_keeps_the_mean_honest() {
        let mut full = Aggregate::from_parts(u32::MAX.into(), 2.0 * f64::from(u32::MAX), 2.0, 2.0)
            .expect("a good aggregate");
        full.add(1000.0);
        assert_eq!(full.count(), u64::from(u32::MAX));
        assert_eq!((full.avg(), full.min(), full.max()), (2.0, 2.0, 1000.0));
    }

    #[test]
    fn impossible_parts_are_refused() {
        for (count, sum, min, max) in [
            (0, 0.0, 0.0, 0.0),
            (1, f64::NAN, 0.0, 0.0),
            (1, 0.0, f64::NEG_INFINITY, 0.0),
            (1, 0.0, 0.0, f64::INFINITY),
            (2, 3.0, 2.0, 1.0),
        ] {
            assert_eq!(Aggregate::from_parts(count, sum, min, max), None);
        }
    }
}
