//! The web page: HTML and SVG of what the receiver knows.
//!
//! ```text
//!  receiver: what it knows ──> plain structs ──> overview, host, trust, delivery, alarms, machine ──> HTML
//!                                                     │
//!                                             plot, unit, date, text
//! ```
//!
//! Pure functions: no HTTP, no clock, no state. Every name and label is text of somebody else's, and
//! goes through [`maud`]'s escaping and [`text`]. There is no inline script or style, so the
//! page works under a policy of `default-src 'none'`. Links are relative, so it may be served below
//! any path.
//!
//! What changes while a page is shown has an `id`, and the same values that the page is made of
//! are given as [`piece::Piece`]s: the script sets them, and makes no HTML.

pub mod alarms;
pub mod assets;
pub mod badge;
pub mod date;
pub mod delivery;
pub mod frame;
pub mod host;
pub mod link;
pub mod machine;
pub mod overview;
pub mod piece;
pub mod plot;
pub mod refusal;
pub mod spark;
pub mod text;
pub mod trust;
pub mod unit;
