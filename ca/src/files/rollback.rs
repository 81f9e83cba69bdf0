//! Removes what an operation has created, unless it succeeds.

use std::fs;
use std::path::PathBuf;

/// Files and folders that are removed on drop unless [`Rollback::disarm`] is called.
#[derive(Debug, Default)]
pub(crate) struct Rollback(Vec<PathBuf>);

impl Rollback {
    pub(crate) fn add(&mut self, path: PathBuf) {
        self.0.push(path);
    }

    /// The operation has succeeded: everything stays.
    pub(crate) fn disarm(mut self) {
        self.0.clear();
    }
}

impl Drop for Rollback {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // Best effort: the user gets the error that caused the rollback.
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_removes_its_files_unless_disarmed() {
        let dir = tempfile::tempdir().unwrap();
        for keep in [false, true] {
            let file = dir.path().join(keep.to_string());
            fs::write(&file, "").unwrap();
            let mut rollback = Rollback::default();
            rollback.add(file.clone());
            rollback.add(dir.path().join("never made"));
            if keep {
                rollback.disarm();
            } else {
                drop(rollback);
            }
            assert_eq!(file.exists(), keep);
        }
    }
}
