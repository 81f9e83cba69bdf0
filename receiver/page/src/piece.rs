//! What changes on a page while it is shown.

/// What of an element changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// Its text.
    Text,
    /// The path that it draws.
    Path,
    /// The time that a plot covers, and its width.
    Window,
}

impl PieceKind {
    /// As the script knows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Path => "d",
            Self::Window => "data-window",
        }
    }
}

/// A new value of one element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The element's id.
    pub id: String,
    /// What of it.
    pub kind: PieceKind,
    /// The value.
    pub value: String,
}

impl Piece {
    /// A new text.
    pub fn text(id: String, value: impl Into<String>) -> Self {
        let (kind, value) = (PieceKind::Text, value.into());
        Self { id, kind, value }
    }

    /// A new path.
    pub fn path(id: String, value: impl Into<String>) -> Self {
        let (kind, value) = (PieceKind::Path, value.into());
        Self { id, kind, value }
    }
}

/// A row of a table of values, which may be new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceRow {
    /// The id of the table's body.
    pub table: String,
    /// Which row: the end of its interval, epoch seconds.
    pub end: u64,
    /// How many rows there are at most.
    pub rows_max: usize,
    /// The cells' texts.
    pub cells: [String; 5],
}
