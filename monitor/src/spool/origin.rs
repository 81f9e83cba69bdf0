//! Of which host and machine a spool is: images are cloned, hosts renamed, folders restored
//! elsewhere.

use serde::{Deserialize, Serialize};

use super::drop_reason;

/// The host that records are of, and the machine that measured them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The node name.
    pub host: String,
    /// The machine.
    #[serde(default)]
    pub machine: Machine,
}

/// What identifies a machine, as far as it can be read. Nothing of it leaves the spool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The operating system's identifier: machine-id(5). A careless clone has the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The UUID of the hardware or of the virtual machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
}

impl Machine {
    /// Reads those of this machine. Only root may read the second.
    pub fn read() -> Self {
        let read = |path: &str| parse_id(&std::fs::read_to_string(path).ok()?);
        Self {
            id: read("/etc/machine-id").or_else(|| read("/var/lib/dbus/machine-id")),
            product: read("/sys/class/dmi/id/product_uuid"),
        }
    }

    /// An identifier that only one of the two has is not compared.
    fn differs_from(&self, other: &Self) -> bool {
        let differ = |one: &Option<String>, two: &Option<String>| {
            one.as_ref()
                .zip(two.as_ref())
                .is_some_and(|(one, two)| one != two)
        };
        differ(&self.id, &other.id) || differ(&self.product, &other.product)
    }
}

/// Before the first boot the identifier is empty, or this word.
fn parse_id(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    (!text.is_empty() && text != "uninitialized").then_some(text)
}

impl Origin {
    /// Why records of `found` must not be delivered from here; none where they may.
    pub(super) fn conflict_with(&self, found: &Self) -> Option<&'static str> {
        if self.host != found.host {
            return Some(drop_reason::OTHER_HOST);
        }
        let is_another = self.machine.differs_from(&found.machine);
        is_another.then_some(drop_reason::OTHER_MACHINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(host: &str, id: Option<&str>, product: Option<&str>) -> Origin {
        Origin {
            host: host.to_owned(),
            machine: Machine {
                id: id.map(str::to_owned),
                product: product.map(str::to_owned),
            },
        }
    }

    #[test]
    fn origins_are_compared() {
        let here = origin("web1", Some("a"), Some("p"));
        let cases = [
            (origin("web1", Some("a"), Some("p")), None),
            (origin("web1", Some("a"), None), None),
            (origin("web1", None, None), None),
            (
                origin("web2", Some("a"), Some("p")),
                Some(drop_reason::OTHER_HOST),
            ),
            (origin("WEB1", None, None), Some(drop_reason::OTHER_HOST)),
            (
                origin("web1", Some("b"), Some("p")),
                Some(drop_reason::OTHER_MACHINE),
            ),
            (
                origin("web1", Some("a"), Some("q")),
                Some(drop_reason::OTHER_MACHINE),
            ),
            (
                origin("web1", None, Some("q")),
                Some(drop_reason::OTHER_MACHINE),
            ),
            (
                origin("web2", Some("b"), Some("q")),
                Some(drop_reason::OTHER_HOST),
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(here.conflict_with(&found), expected, "{found:?}");
        }
    }

    #[test]
    fn an_uninitialized_machine_id_is_ignored() {
        let cases = [
            ("", None),
            ("\n", None),
            ("uninitialized\n", None),
            ("0A1B\n", Some("0a1b")),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_id(text).as_deref(), expected, "{text:?}");
        }
    }
}
