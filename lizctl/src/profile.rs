//! Profiles: named connections in a file, so that daily use needs no flags.
//!
//! ```text
//! --receiver --cert --key --ca  >  LIZMON_…  >  --profile, or the default one  >  profile.toml in --certs
//!                                                (config.toml)                     (written by `up`)
//! ```
//!
//! Of the two files one profile is used, as a whole: certificate, root and receiver of different
//! fleets do not fit together. A file that cannot be read in full is an error and never half used.

mod error;
mod file;
mod write;

use std::path::{Path, PathBuf};

use etcetera::base_strategy::{BaseStrategy, Xdg};
use lizmon_client::BaseUrl;

pub(crate) use self::error::ProfileFileError;
pub(crate) use self::file::{ProfileFile, read_local};
pub(crate) use self::write::{Added, add, write_local};

/// The file with the profiles of a person, below `$XDG_CONFIG_HOME`.
const CONFIG_FILE: &str = "lizmon/config.toml";
/// The file with the one profile of a folder `--certs`.
pub(crate) const LOCAL_FILE: &str = "profile.toml";

/// What a profile says of a connection. Paths are complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ConnectionProfile {
    pub(crate) receiver: Option<BaseUrl>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) ca: Option<PathBuf>,
    /// Where machines join, for the commands that `join-token` prints.
    pub(crate) ca_url: Option<BaseUrl>,
}

impl ConnectionProfile {
    /// Its values by key, as in a file. A path that is not UTF-8 cannot be in one.
    pub(crate) fn pairs(&self) -> [(&'static str, Option<String>); 5] {
        let text = |path: &Option<PathBuf>| {
            let path = path.as_deref()?;
            Some(path.to_string_lossy().into_owned())
        };
        [
            ("receiver", self.receiver.as_ref().map(BaseUrl::to_string)),
            ("cert", text(&self.cert)),
            ("key", text(&self.key)),
            ("ca", text(&self.ca)),
            ("ca-url", self.ca_url.as_ref().map(BaseUrl::to_string)),
        ]
    }
}

/// `$XDG_CONFIG_HOME/lizmon/config.toml`. `None` for a user without a home.
pub(crate) fn config_file() -> Option<PathBuf> {
    Some(Xdg::new().ok()?.config_dir().join(CONFIG_FILE))
}

/// `profile.toml` in the folder of certificates.
pub(crate) fn local_file(certs: &Path) -> PathBuf {
    certs.join(LOCAL_FILE)
}
