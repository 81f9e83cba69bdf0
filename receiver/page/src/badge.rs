//! What is wrong with a host, in a few words.

use maud::{Markup, html};

/// How bad it is. The order is that of the list of hosts: worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BadgeLevel {
    /// It needs somebody now.
    Bad,
    /// It needs somebody soon.
    Warn,
    /// It is worth knowing.
    Note,
    /// All is well.
    Good,
}

impl BadgeLevel {
    fn class(self) -> &'static str {
        match self {
            Self::Bad => "badge bad",
            Self::Warn => "badge warn",
            Self::Note => "badge note",
            Self::Good => "badge good",
        }
    }

    /// A shape, because a colour alone says nothing to some.
    fn sign(self) -> &'static str {
        match self {
            Self::Bad => "▲",
            Self::Warn => "◆",
            Self::Note => "○",
            Self::Good => "●",
        }
    }
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Badge {
    /// How bad it is.
    pub level: BadgeLevel,
    /// A few words.
    pub text: String,
}

impl Badge {
    /// A badge.
    pub fn new(level: BadgeLevel, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { level, text }
    }
}

/// Badges beside each other; that all is well if there are none.
pub fn badges(badges: &[Badge]) -> Markup {
    let well = [Badge::new(BadgeLevel::Good, "OK")];
    let shown = if badges.is_empty() { &well } else { badges };
    html! {
        span.badges {
            @for badge in shown {
                span class=(badge.level.class()) {
                    span.sign aria-hidden="true" { (badge.level.sign()) }
                    " " bdi { (crate::text::visible(&badge.text)) }
                }
                " "
            }
        }
    }
}
