//! Adding and revoking machines, where the page has no CA beside it: a receiver cannot issue
//! certificates, so these pages say what to type. `lizctl open` has forms in their place where it
//! has the CA.

use maud::{Markup, html};

use crate::text::isolated;

/// How a machine is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddPage {
    /// The receiver's URL.
    pub receiver: String,
}

impl AddPage {
    /// The page's contents.
    pub fn markup(&self) -> Markup {
        let receiver = &self.receiver;
        html! {
            h1 { "Add a machine" }
            p.lead { "A receiver cannot issue certificates: the CA's machine lets a machine in. There and on the new machine, type this." }
            ol.steps {
                li {
                    p { "On the CA's machine, make a token. It works once, for ten minutes." }
                    pre { code { "lizctl join-token NAME --tag KEY=VALUE" } }
                    p { "This prints the token, the fingerprint of the CA, and the next command with both." }
                }
                li {
                    p { "On the new machine, get a certificate:" }
                    pre { code { "lizctl join https://CA-HOST:8444 --token TOKEN --ca-fingerprint FINGERPRINT --receiver " (receiver) } }
                    p { "This prints the command that starts the monitor there." }
                }
                li { p { "The machine appears among the " a href="./" { "hosts" } " with its first sample." } }
            }
            p.note {
                "On the CA's machine " code { "lizctl open" } " does the first on this page, and lists the tokens that nobody has used; "
                code { "lizctl hosts" } " lists them there, too."
            }
        }
    }
}

/// How a machine is revoked. It is one path below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokePage {
    /// Its name.
    pub name: String,
    /// The receiver's URL.
    pub receiver: String,
}

impl RevokePage {
    /// The title of the page.
    pub fn title(&self) -> String {
        format!("Revoke {}", self.name)
    }

    /// The page's contents.
    pub fn markup(&self) -> Markup {
        let Self { name, receiver } = self;
        html! {
            h1 { "Revoke " (isolated(name)) }
            (consequence(name))
            p { "On the CA's machine:" }
            pre { code { "lizctl revoke " (name) } }
            p { "Receivers that know liz-ca fetch the new revocation list from it. This gives it to this one at once, and says after how long it refuses the machine:" }
            pre {
                code {
                    "lizctl revoke " (name) " --receiver " (receiver)
                    " --cert certs/operators/YOU.crt --key certs/operators/YOU.key --ca certs/root.crt"
                }
            }
            p.note { "On the CA's machine " code { "lizctl open" } " does it on this page." }
        }
    }
}

/// What revoking means for a machine.
pub fn consequence(name: &str) -> Markup {
    html! {
        p.lead { "All certificates and join tokens of " strong { (isolated(name)) } " end at once. What it has sent stays." }
    }
}
