//! Files of the CA: which file is where, and how each is read and written.
//!
//! This layer knows paths, modes and bytes. What is in a file is the other layers' business.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`layout`] | paths below `certs/` |
//! | [`disk`] | atomic writes, secret files, folders, permission checks |
//! | `group` | many files, with one sync |
//! | `rollback` | removes the files of an operation that failed |
//! | `error` | what can be wrong with a file |

pub mod disk;
mod error;
mod group;
pub mod layout;
mod rollback;

pub use self::disk::Access;
pub use self::error::CaFileError;
pub(crate) use self::group::{NewFile, write_all};
pub use self::layout::{CaFiles, LeafFiles, Presence};
pub(crate) use self::rollback::Rollback;
