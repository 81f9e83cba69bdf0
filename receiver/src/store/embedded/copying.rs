//! A store as the target of a copy: see `copy.rs` of the stores.
//!
//! A file marks the folder before anything else is in it, and goes last.

use std::fs::File;
use std::path::Path;

use super::super::engine::CopyTarget;
use super::super::error::StoreError;
use super::super::history::StoredChunk;
use super::super::shard::Fence;
use super::EmbeddedStore;
use super::error::EmbeddedError;
use super::{files, history};

impl EmbeddedStore {
    /// Makes an empty store in a folder without one, and marks it as incomplete. What an
    /// interrupted copy left there is removed.
    pub(crate) fn open_target(folder: &Path, lock: File, now: u64) -> Result<Self, StoreError> {
        let file = files::database(folder);
        if files::refuse_incomplete(folder).is_ok() {
            if files::is_there(folder) {
                return Err(EmbeddedError::NotEmpty { file }.into());
            }
            files::mark_incomplete(folder)?;
        }
        files::remove_all(&file);
        files::unmark(folder)?;
        Ok(Self::open_unchecked(folder, lock, now)?)
    }
}

impl CopyTarget for EmbeddedStore {
    fn complete_copy(&mut self) -> Result<(), StoreError> {
        Ok(files::mark_complete(&self.folder)?)
    }

    fn put_chunks(&mut self, fence: Fence, chunks: &[StoredChunk]) -> Result<(), StoreError> {
        self.check_fence(fence)?;
        let put = || {
            let transaction = self.connection.transaction()?;
            for chunk in chunks {
                history::save_chunk(&transaction, chunk)?;
            }
            Ok::<_, EmbeddedError>(transaction.commit()?)
        };
        Ok({ put }()?)
    }

    /// An interrupted copy was removed whole when this was opened.
    fn clear_chunks(&mut self, fence: Fence) -> Result<(), StoreError> {
        Ok(self.check_fence(fence)?)
    }
}
