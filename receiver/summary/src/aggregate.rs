//! Count, sum, minimum and maximum of one interval; rounding.

/// The aggregate of the samples of one interval.
///
/// Packed, because a series has 89 of these and a receiver has many series: 28 bytes instead of 32.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, packed(4))]
pub struct Aggregate {
    sum: f64,
    min: f64,
    max: f64,
    count: u32,
}

impl Aggregate {
    /// An aggregate without samples.
    pub const EMPTY: Self = Self {
        sum: 0.0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        count: 0,
    };

    /// A stored aggregate. `None` if no samples can have this aggregate.
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
    /// After 2^32 - 1 samples in one interval (a million a second for an hour), count and sum no
    /// longer change, so that the mean stays the mean of the counted samples. Minimum and maximum
    /// still change.
    pub fn add(&mut self, value: f64) {
        if let Some(count) = self.count.checked_add(1) {
            // A single -0.0 keeps its sign. The sum 0.0 + -0.0 would lose it.
            self.sum = if self.count == 0 {
                value
            } else {
                self.sum + value
            };
            self.count = count;
        }
        // The total order puts -0.0 before 0.0, so the result does not depend on the order of
        // arrival.
        let (min, max) = (self.min, self.max);
        if value.total_cmp(&min).is_lt() {
            self.min = value;
        }
        if value.total_cmp(&max).is_gt() {
            self.max = value;
        }
    }

    /// The number of samples.
    pub fn count(&self) -> u64 {
        self.count.into()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The sum, added in order of arrival.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The minimum.
    pub fn min(&self) -> f64 {
        self.min
    }

    /// The maximum.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// The mean, rounded to two decimals. NaN without samples.
    pub fn avg(&self) -> f64 {
        round_to_cents(self.sum / f64::from(self.count))
    }
}

/// Rounds to two decimals exactly as Python's `round(x, 2)`: to the nearest by the exact binary
/// value, and half to even.
///
/// ```
/// use lizmon_summary::round_to_cents;
/// assert_eq!(round_to_cents(2.675), 2.67); // in binary it is a little less than 2.675
/// assert_eq!(round_to_cents(0.125), 0.12); // exactly half-way: to even
/// ```
pub fn round_to_cents(x: f64) -> f64 {
    // The error of `x * 100` is at most half a unit in the last place: 2^-13 below 2^40. So unless
    // the fraction is that near to one half, rounding this product gives the same as rounding the
    // exact one. The resulting integer is exact, and IEEE division gives the f64 nearest to the
    // decimal, as parsing the decimal would.
    const QUICK_BELOW: f64 = (1_u64 << 40) as f64;
    const NEAR_HALF: f64 = 1e-3;
    let cents = x * 100.0;
    // As whole numbers: `fract` and `round` are calls.
    let fraction = cents - cents as i64 as f64;
    if cents.abs() < QUICK_BELOW && (fraction.abs() - 0.5).abs() > NEAR_HALF {
        let rounded = (cents + 0.5_f64.copysign(cents)) as i64 as f64;
        // -0.001 becomes -0.0.
        return rounded.copysign(x) / 100.0;
    }
    round_by_decimal(x)
}

/// Rounds the exact decimal expansion, which `format!` rounds half to even.
fn round_by_decimal(x: f64) -> f64 {
    const WHOLE_FROM: f64 = (1_u64 << 52) as f64;
    if !x.is_finite() || x.abs() >= WHOLE_FROM {
        return x;
    }
    // The output of `format!` always parses as a float.
    format!("{x:.2}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each expected value is the result of `round(x, 2)` in CPython 3.
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
            // Odd eighths (.125, .375, .625 and .875) are exactly half-way between cents.
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
