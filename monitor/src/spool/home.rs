//! Whose a spool is, and on which machine it was filled: images are cloned, hosts renamed, folders restored elsewhere.

use serde::{Deserialize, Serialize};

use super::why;

/// The host that records are of, and the machine that measured them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The node name.
    pub host: String,
    /// Which machine.
    #[serde(default)]
    pub machine: Machine,
}

/// What tells one machine from another, as far as it can be read. Nothing of it leaves the spool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The operating system's own: machine-id(5). A clone that was made carelessly has the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The one that the hardware, or the virtual one, was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
}

impl Machine {
    /// This one. Only root may read the second.
    pub fn this() -> Self {
        let read = |path: &str| known(&std::fs::read_to_string(path).ok()?);
        Self {
            id: read("/etc/machine-id").or_else(|| read("/var/lib/dbus/machine-id")),
            product: read("/sys/class/dmi/id/product_uuid"),
        }
    }

    /// What only one of the two knows says nothing.
    fn is_another_than(&self, other: &Self) -> bool {
        let differ = |one: &Option<String>, two: &Option<String>| {
            one.as_ref()
                .zip(two.as_ref())
                .is_some_and(|(one, two)| one != two)
        };
        differ(&self.id, &other.id) || differ(&self.product, &other.product)
    }
}

/// Before the first boot a system's id is empty, or this word.
fn known(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    (!text.is_empty() && text != "uninitialized").then_some(text)
}

impl Home {
    /// Why what was filled at `found` is not to be delivered from here; none where it is.
    pub(super) fn refuses(&self, found: &Self) -> Option<&'static str> {
        if self.host != found.host {
            return Some(why::OTHER_HOST);
        }
        let is_another = self.machine.is_another_than(&found.machine);
        is_another.then_some(why::OTHER_MACHINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(host: &str, id: Option<&str>, product: Option<&str>) -> Home {
        Home {
            host: host.to_owned(),
            machine: Machine {
                id: id.map(str::to_owned),
                product: product.map(str::to_owned),
            },
        }
    }

    #[test]
    fn whose_it_is() {
        let here = home("web1", Some("a"), Some("p"));
        let cases = [
            (home("web1", Some("a"), Some("p")), None),
            (home("web1", Some("a"), None), None),
            (home("web1", None, None), None),
            (home("web2", Some("a"), Some("p")), Some(why::OTHER_HOST)),
            (home("WEB1", None, None), Some(why::OTHER_HOST)),
            (home("web1", Some("b"), Some("p")), Some(why::OTHER_MACHINE)),
            (home("web1", Some("a"), Some("q")), Some(why::OTHER_MACHINE)),
            (home("web1", None, Some("q")), Some(why::OTHER_MACHINE)),
            (home("web2", Some("b"), Some("q")), Some(why::OTHER_HOST)),
        ];
        for (found, expected) in cases {
            assert_eq!(here.refuses(&found), expected, "{found:?}");
        }
    }

    #[test]
    fn an_id_that_is_none() {
        let cases = [
            ("", None),
            ("\n", None),
            ("uninitialized\n", None),
            ("0A1B\n", Some("0a1b")),
        ];
        for (text, expected) in cases {
            assert_eq!(known(text).as_deref(), expected, "{text:?}");
        }
    }
}
