//! Why a file of profiles cannot be used.

use std::path::PathBuf;

use lizmon_client::BaseUrlError;

/// A file of profiles cannot be used, or lacks the profile that was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileFileError {
    #[error("cannot read the profiles in {}", file.display())]
    Unreadable {
        file: PathBuf,
        source: std::io::Error,
    },
    /// A line of the file is wrong.
    #[error("{}:{line}: {fault}", file.display())]
    Line {
        file: PathBuf,
        line: usize,
        fault: ProfileFault,
    },
    #[error("there is no profile {name:?} in {}: {known}", file.display())]
    Unknown {
        name: String,
        file: PathBuf,
        known: String,
    },
    #[error(
        "profiles are kept in $XDG_CONFIG_HOME or ~/.config, and neither XDG_CONFIG_HOME nor HOME is set"
    )]
    NoHome,
    #[error("cannot write {}", file.display())]
    Unwritable {
        file: PathBuf,
        source: std::io::Error,
    },
    /// Replacing a link would part it from the file that its owner keeps elsewhere.
    #[error("{} is a link, which is not replaced: edit the file that it names", file.display())]
    Link { file: PathBuf },
    /// The new text would not mean what was meant.
    #[error("cannot add to {}: its profiles are written in another form: edit it", file.display())]
    OtherForm { file: PathBuf },
}

/// What is wrong in a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProfileFault {
    #[error("{0}")]
    Syntax(String),
    #[error("there is no key {key:?} here; there are {known}")]
    UnknownKey { key: String, known: &'static str },
    #[error("{key} is {expected}")]
    Kind { key: String, expected: &'static str },
    #[error("{key}: {source}")]
    Receiver { key: String, source: BaseUrlError },
    #[error("default names {name:?}, and there is no such profile: {known}")]
    NoDefault { name: String, known: String },
}
