//! What goes through the network interfaces.

use super::collector::{CollectContext, Collector, CollectorSpec, CollectorStart, LabelSpec};
use super::failure::CollectError;
use super::names;
use super::options::Patterns;
use super::procfs;
use super::rates::Rates;
use super::readings::Readings;

/// The collector.
pub(super) static NETWORK: CollectorSpec = CollectorSpec {
    name: "network",
    labels: &[
        LabelSpec {
            label: "net-rx:{interface}",
            unit: "bytes/s",
            source: "`/proc/net/dev`",
            meaning: "received",
        },
        LabelSpec {
            label: "net-tx:{interface}",
            unit: "bytes/s",
            source: "`/proc/net/dev`",
            meaning: "sent",
        },
        LabelSpec {
            label: "net-errors:{interface}",
            unit: "errors/s",
            source: "`/proc/net/dev`",
            meaning: "errors of receiving and sending; packets that were only dropped are none",
        },
    ],
    labels_max: 30,
    more_labels_a_day: 0,
    start: |start: &CollectorStart<'_>| {
        Ok(Box::new(Network {
            patterns: start.options.interfaces.clone(),
            rates: Rates::default(),
        }))
    },
};

const PREFIXES: [&str; 3] = ["net-rx:", "net-tx:", "net-errors:"];
const DEV: &str = "/proc/net/dev";

/// The beginnings of the names of interfaces that are not measured by default: what goes through
/// them goes through another as well, or is a container's or a virtual machine's.
pub(super) const SKIPPED_PREFIXES: [&str; 12] = [
    "veth",
    "cali",
    "lxc",
    "lxd",
    "vnet",
    "tap",
    "fwbr",
    "fwln",
    "fwpr",
    "ifb",
    "dummy",
    "nodelocal",
];
/// So many hexadecimal digits after `br-` are a bridge of Docker's.
const DOCKER_BRIDGE_DIGITS: usize = 12;

struct Network {
    patterns: Patterns,
    rates: Rates<3>,
}

impl Collector for Network {
    fn collect(
        &mut self,
        context: &CollectContext,
        readings: &mut Readings<'_>,
    ) -> Result<(), CollectError> {
        let text = procfs::read_bytes(DEV)?;
        self.rates.begin(context.monotonic)?;
        let mut interfaces: Vec<_> = interfaces(&text)?
            .into_iter()
            .filter(|(name, _)| {
                let name = String::from_utf8_lossy(name);
                self.patterns.takes(&name, || !is_skipped(&name))
            })
            .collect();
        interfaces.sort_unstable();
        for (name, counters) in interfaces {
            let Some(rates) = self.rates.per_second(name, counters) else {
                continue;
            };
            for (prefix, rate) in PREFIXES.into_iter().zip(rates) {
                if let Some(rate) = rate {
                    readings.push_or_note(names::label(prefix, name), rate);
                }
            }
        }
        Ok(())
    }
}

fn is_skipped(name: &str) -> bool {
    let is_docker_bridge = name.strip_prefix("br-").is_some_and(|rest| {
        rest.len() == DOCKER_BRIDGE_DIGITS && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    name == "lo"
        || is_docker_bridge
        || SKIPPED_PREFIXES
            .iter()
            .any(|skipped| name.starts_with(skipped))
}

/// The name of an interface; bytes received, bytes sent, errors of both.
type Interface<'t> = (&'t [u8], [u64; 3]);

/// Each interface: proc_pid_net(5). A line that cannot be read is passed over. Other kernels have
/// other columns, and name these in the heading.
fn interfaces(text: &[u8]) -> Result<Vec<Interface<'_>>, CollectError> {
    let missing = CollectError::Missing {
        path: DEV,
        field: "heading with bytes and errs",
    };
    let mut lines = text.split(|byte| *byte == b'\n').skip(1);
    let heading = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let mut groups = heading.ok_or(missing.clone())?.split('|').skip(1);
    let mut columns = |missing: &CollectError| {
        let names: Vec<&str> = groups
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace()
            .collect();
        let place = |name| names.iter().position(|known| *known == name);
        match (place("bytes"), place("errs")) {
            (Some(bytes), Some(errors)) => Ok((bytes, errors, names.len())),
            _ => Err(missing.clone()),
        }
    };
    let (rx_bytes, rx_errors, rx_columns) = columns(&missing)?;
    let (tx_bytes, tx_errors, _) = columns(&missing)?;
    let interface = |line: &'_ [u8]| -> Option<(std::ops::Range<usize>, [u64; 3])> {
        // Aliases of old kernels have a colon in their names, and numbers stand close to it.
        let colon = line.iter().rposition(|byte| *byte == b':')?;
        let numbers = std::str::from_utf8(&line[colon + 1..]).ok()?;
        let numbers = numbers
            .split_ascii_whitespace()
            .map(|word| word.parse().ok());
        let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
        let at = |column: usize| numbers.get(column).copied();
        let counters = [
            at(rx_bytes)?,
            at(rx_columns + tx_bytes)?,
            at(rx_errors)?.saturating_add(at(rx_columns + tx_errors)?),
        ];
        let start = line.iter().position(|byte| *byte != b' ')?;
        (start < colon).then_some((start..colon, counters))
    };
    Ok(lines
        .filter_map(|line| interface(line).map(|(name, counters)| (&line[name], counters)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
";

    fn check(lines: &str, expected: &[(&str, [u64; 3])]) {
        let text = format!("{HEADING}{lines}");
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, all)| (name.as_bytes(), *all))
            .collect();
        assert_eq!(interfaces(text.as_bytes()).unwrap(), expected, "{lines:?}");
    }

    #[test]
    fn counters_of_interfaces() {
        check(
            "    lo: 72821485468 55383753    0    0    0     0          0         0 72821485468 55383753    0    0    0     0       0          0
  eth0: 1990857615   75321    1    0    0     0          0         0  5463738   48038    2    0    0     0       0          0\n",
            &[("lo", [72_821_485_468, 72_821_485_468, 0]), ("eth0", [1_990_857_615, 5_463_738, 3])],
        );
        // Without a space before a great number; an alias; what has no numbers, or bad ones.
        check(
            "eth0:4294967295 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n",
            &[("eth0", [4_294_967_295, 7, 0])],
        );
        check(
            "eth0:1: 5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n",
            &[("eth0:1", [5, 7, 0])],
        );
        check(
            "eth0: No statistics available\neth1: 1 2 3\n: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n",
            &[],
        );
        check("eth0: -1 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n", &[]);
        check("", &[]);
        let hostile = [
            HEADING.as_bytes(),
            b"  \xffx\x01: 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n",
        ]
        .concat();
        assert_eq!(
            interfaces(&hostile).unwrap(),
            [(&b"\xffx\x01"[..], [1, 2, 0])]
        );
    }

    #[test]
    fn other_columns_are_found_by_the_heading() {
        let old = b"Inter-|   Receive                  |  Transmit
 face |packets errs drop fifo frame|packets errs drop fifo colls carrier\n";
        assert!(interfaces(old).is_err());
        let other = b"Inter-|   Receive |  Transmit
 face |bytes errs|errs bytes\n eth0: 1 2 3 4\n";
        assert_eq!(interfaces(other).unwrap(), [(&b"eth0"[..], [1, 4, 5])]);
        for text in ["", "Inter-|", "Inter-|\n", "Inter-|\nface | bytes errs\n"] {
            assert!(interfaces(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn interfaces_that_are_not_measured() {
        let skipped = [
            "lo",
            "veth1a2b3c",
            "cali0123",
            "br-0a1b2c3d4e5f",
            "tap0",
            "vnet3",
            "ifb0",
        ];
        let measured = [
            "eth0", "enp3s0", "wlan0", "bond0", "eth0.12", "br-lan", "br0", "docker0", "wg0",
        ];
        assert!(skipped.iter().all(|name| is_skipped(name)));
        assert!(!measured.iter().any(|name| is_skipped(name)));
    }
}
