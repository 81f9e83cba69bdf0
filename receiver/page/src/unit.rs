//! The unit of a label, and how its values are written.

/// What the numbers of a series mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueUnit {
    /// Nothing is known.
    Plain,
    /// Percent.
    Percent,
    /// Bytes.
    Bytes,
    /// Bytes per second.
    ByteRate,
    /// Events per second.
    Rate,
    /// Seconds.
    Seconds,
    /// Degrees Celsius.
    Celsius,
}

/// The labels of the monitor's collectors, as `docs/monitor.md` lists them. A label that ends with
/// `:` stands for all that begin with it.
const UNITS: [(&str, ValueUnit); 23] = [
    ("cpu", ValueUnit::Percent),
    ("cpu:", ValueUnit::Percent),
    ("mem", ValueUnit::Percent),
    ("swap", ValueUnit::Percent),
    ("disk-used:", ValueUnit::Percent),
    ("disk-inodes:", ValueUnit::Percent),
    ("disk-busy:", ValueUnit::Percent),
    ("disk-read:", ValueUnit::ByteRate),
    ("disk-write:", ValueUnit::ByteRate),
    ("net-rx:", ValueUnit::ByteRate),
    ("net-tx:", ValueUnit::ByteRate),
    ("net-errors:", ValueUnit::Rate),
    ("temperature:", ValueUnit::Celsius),
    ("uptime", ValueUnit::Seconds),
    ("clock-skew", ValueUnit::Seconds),
    ("cgroup-cpu:", ValueUnit::Percent),
    ("cgroup-mem:", ValueUnit::Bytes),
    ("process-cpu:", ValueUnit::Percent),
    ("process-mem:", ValueUnit::Bytes),
    ("monitor-cpu", ValueUnit::Percent),
    ("monitor-memory", ValueUnit::Bytes),
    ("spool-bytes", ValueUnit::Bytes),
    ("collect-millis", ValueUnit::Plain),
];

const BINARY: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
/// Beyond this a number is written with an exponent.
const PLAIN_MAX: f64 = 1e9;

impl ValueUnit {
    /// The unit of this label.
    pub fn of(label: &str) -> Self {
        let found = UNITS.iter().find(|(name, _)| match name.ends_with(':') {
            true => label.starts_with(name),
            false => label == *name,
        });
        found.map_or(Self::Plain, |(_, unit)| *unit)
    }

    /// The value at a glance: about three digits, with its unit.
    pub fn short(self, value: f64) -> String {
        match self {
            Self::Plain => digits(value),
            Self::Percent => format!("{} %", digits(value)),
            Self::Bytes => binary(value),
            Self::ByteRate => format!("{}/s", binary(value)),
            Self::Rate => format!("{}/s", digits(value)),
            Self::Celsius => format!("{} °C", digits(value)),
            Self::Seconds if value.abs() < 120.0 => format!("{} s", digits(value)),
            Self::Seconds if value < 0.0 => format!("−{}", crate::date::span(-value as u64)),
            Self::Seconds => crate::date::span(value as u64),
        }
    }

    /// The unit alone, for the head of a table of exact values.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Percent => "%",
            Self::Bytes => "bytes",
            Self::ByteRate => "bytes/s",
            Self::Rate => "per second",
            Self::Seconds => "s",
            Self::Celsius => "°C",
        }
    }

    /// Ends of a scale that holds these values.
    pub fn scale(self, min: f64, max: f64) -> (f64, f64) {
        if self == Self::Percent && min >= 0.0 && max <= 100.0 {
            let top = [10.0, 25.0, 50.0].into_iter().find(|top| max <= *top);
            return (0.0, top.unwrap_or(100.0));
        }
        let range = max - min;
        let is_far_from_zero = min > 0.0 && range > 0.0 && range < 0.2 * max;
        if is_far_from_zero {
            let step = round_up(range / 2.0, false);
            let (low, high) = ((min / step).floor() * step, (max / step).ceil() * step);
            if low < high && low.is_finite() && high.is_finite() {
                return (low, high);
            }
        }
        let is_binary = matches!(self, Self::Bytes | Self::ByteRate);
        let low = if min < 0.0 {
            -round_up(-min, is_binary)
        } else {
            0.0
        };
        let high = if max > 0.0 {
            round_up(max, is_binary)
        } else {
            0.0
        };
        if low < high { (low, high) } else { (0.0, 1.0) }
    }
}

/// The next number up that reads well.
fn round_up(value: f64, is_binary: bool) -> f64 {
    if is_binary && value >= 1.0 {
        return value.log2().ceil().exp2();
    }
    let step = 10f64.powf(value.log10().floor());
    let part = value / step;
    let up = [1.0, 2.0, 2.5, 5.0].into_iter().find(|up| part <= *up);
    up.unwrap_or(10.0) * step
}

/// About three digits.
fn digits(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        0.0 => "0".to_owned(),
        _ if !(1e-3..PLAIN_MAX).contains(&size) => format!("{value:.2e}"),
        _ if size < 10.0 => format!("{value:.2}"),
        _ if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    with_minus(text)
}

fn binary(value: f64) -> String {
    let mut scaled = value;
    let mut unit = 0;
    while scaled.abs() >= 1023.5 && unit + 1 < BINARY.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    match BINARY.get(unit) {
        Some(unit @ &"B") => with_minus(format!("{scaled:.0} {unit}")),
        Some(unit) => format!("{} {unit}", digits(scaled)),
        None => digits(value),
    }
}

/// The value as it is stored: as few digits as tell it from every other number.
pub fn exact(value: f64) -> String {
    let size = value.abs();
    with_minus(match size == 0.0 || (1e-6..1e15).contains(&size) {
        true => format!("{value}"),
        false => format!("{value:e}"),
    })
}

fn with_minus(text: String) -> String {
    text.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_at_a_glance() {
        for (label, value, expected) in [
            ("cpu", 4.98, "4.98 %"),
            ("disk-used:/", 100.0, "100 %"),
            ("net-rx:eth0", 1536.0, "1.50 KiB/s"),
            ("cgroup-mem:a", 12.0, "12 B"),
            ("temperature:cpu", 41.25, "41.2 °C"),
            ("uptime", 90_000.0, "25 h"),
            ("clock-skew", -300.0, "−5 min"),
            ("queue", 0.0, "0"),
            ("queue", -0.0, "0"),
            ("queue", -2.5, "−2.50"),
            ("queue", 1e290, "1.00e290"),
            ("cgroup-mem:a", 1e290, "8.67e271 EiB"),
            ("cpu-like", 5.0, "5.00"),
        ] {
            assert_eq!(
                ValueUnit::of(label).short(value),
                expected,
                "{label} {value}"
            );
        }
    }

    #[test]
    fn exact_values_are_whole_and_short() {
        for (value, expected) in [
            (4.98, "4.98"),
            (61.0, "61"),
            (-0.1, "−0.1"),
            (1e290, "1e290"),
            (5e-324, "5e−324"),
        ] {
            assert_eq!(exact(value), expected);
        }
    }

    #[test]
    fn scales_hold_their_values() {
        for (unit, min, max, expected) in [
            (ValueUnit::Percent, 3.0, 9.0, (0.0, 10.0)),
            (ValueUnit::Percent, 3.0, 99.0, (0.0, 100.0)),
            (ValueUnit::Plain, 0.0, 0.0, (0.0, 1.0)),
            (ValueUnit::Plain, 0.0, 3.0, (0.0, 5.0)),
            (ValueUnit::Plain, -3.0, 3.0, (-5.0, 5.0)),
            (ValueUnit::Plain, -3.0, -1.0, (-5.0, 0.0)),
            (ValueUnit::Plain, 1001.0, 1009.0, (1000.0, 1010.0)),
            (ValueUnit::ByteRate, 0.0, 1500.0, (0.0, 2048.0)),
        ] {
            assert_eq!(unit.scale(min, max), expected, "{min} to {max}");
        }
        for max in [1e-290, 1.0, 1e290] {
            for min in [-1e290, 0.0, 1e-290, max * 0.99] {
                let (low, high) = ValueUnit::Plain.scale(min, max);
                assert!(
                    low <= min && max <= high && (high - low).is_finite(),
                    "{min} {max}"
                );
            }
        }
    }
}
