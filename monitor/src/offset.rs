//! When within a second, and within a minute, a monitor does what every monitor does: its name
//! decides. So those of a fleet whose clocks agree do not all send at once.

use std::time::Duration;

use lizmon_protocol::name::NodeName;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// How long after a whole second a monitor sends: less than a second. Always the same for a name.
pub fn send_offset(host: &NodeName) -> Duration {
    scaled(mixed(fnv1a(host)), SECOND)
}

/// How long after a whole minute a monitor asks what a receiver misses: less than a minute. It says
/// nothing of [`send_offset`].
pub fn check_offset(host: &NodeName) -> Duration {
    scaled(mixed(!fnv1a(host)), MINUTE)
}

/// Part of what a release does: another hash would move every monitor.
fn fnv1a(host: &NodeName) -> u64 {
    let bytes = host.as_str().bytes();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// MurmurHash3's finalizer: names that differ in their last digit alone differ in every bit.
fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// That part of `span` which the hash is of 2^64, in whole microseconds.
fn scaled(hash: u64, span: Duration) -> Duration {
    let micros = (u128::from(hash) * span.as_micros()) >> 64;
    Duration::from_micros(micros as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: usize = 10_000;
    const SLOTS: usize = 100;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    /// Pearson's chi-square of how many names have each slot of the span.
    fn chi_square(offsets: impl Iterator<Item = Duration>, span: Duration) -> f64 {
        let mut slots = [0_u32; SLOTS];
        for offset in offsets {
            assert!(offset < span, "{offset:?}");
            slots[(offset.as_micros() * SLOTS as u128 / span.as_micros()) as usize] += 1;
        }
        let expected = (NAMES / SLOTS) as f64;
        let of_slot = |count: &u32| (f64::from(*count) - expected).powi(2) / expected;
        slots.iter().map(of_slot).sum()
    }

    /// Names as sites give them. By chance alone chi-square would be above 149 for one in a
    /// thousand (99 degrees of freedom), and below 60 as rarely: too even a spread would be a
    /// pattern as well.
    #[test]
    fn a_fleet_is_spread_over_the_second_and_the_minute() {
        let shapes: [fn(usize) -> String; 5] = [
            |at| format!("web{at}"),
            |at| format!("node-{at:05}.example.org"),
            |at| format!("{at:x}"),
            |at| format!("ip-10-{}-{}-{}", at / 2_500, at / 50 % 50, at % 50),
            |at| format!("rack{}-unit{}", at / 40, at % 40),
        ];
        for shape in shapes {
            let names = || (0..NAMES).map(|at| name(&shape(at)));
            let seconds = chi_square(names().map(|name| send_offset(&name)), SECOND);
            let minutes = chi_square(names().map(|name| check_offset(&name)), MINUTE);
            for chi_square in [seconds, minutes] {
                assert!(
                    (60.0..149.0).contains(&chi_square),
                    "{}: {chi_square}",
                    shape(0)
                );
            }
        }
    }

    #[test]
    fn a_name_has_its_offsets_for_ever() {
        for (text, send, check) in [
            ("web1", 579_955, 48_667_825),
            ("web2", 474_869, 35_403_671),
            ("db1.example.org", 836_511, 36_191_491),
        ] {
            let offsets = [send_offset(&name(text)), check_offset(&name(text))];
            assert_eq!(
                offsets.map(|offset| offset.as_micros()),
                [send, check],
                "{text}"
            );
        }
    }

    /// The two do not go together: monitors that send at one moment ask at different ones.
    #[test]
    fn the_offsets_are_independent() {
        let pairs = (0..NAMES).map(|at| {
            let name = name(&format!("web{at}"));
            let unit = |offset: Duration, span: Duration| offset.as_secs_f64() / span.as_secs_f64();
            (
                unit(send_offset(&name), SECOND) - 0.5,
                unit(check_offset(&name), MINUTE) - 0.5,
            )
        });
        let covariance = pairs.map(|(send, check)| send * check).sum::<f64>() / NAMES as f64;
        // Each has a variance of 1/12; by chance the correlation is beyond 0.03 for one in 400.
        assert!((12.0 * covariance).abs() < 0.03, "{covariance}");
    }
}
