//! Places among the streams of a kind, of which there is a bound: who finds none is told which kind is full, and the others are not.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;

/// The places of one kind.
pub(crate) struct Places {
    of: &'static str,
    limit: usize,
    free: Arc<Semaphore>,
}

/// A place, for as long as it is held.
pub(crate) struct Place {
    _taken: OwnedSemaphorePermit,
}

impl Places {
    pub(crate) fn new(of: &'static str, limit: usize) -> Self {
        Self { of, limit, free: Arc::new(Semaphore::new(limit)) }
    }

    /// One of them, or which are all taken.
    pub(crate) fn take(&self) -> Result<Place, ApiError> {
        let taken = Arc::clone(&self.free).try_acquire_owned();
        taken
            .map(|taken| Place { _taken: taken })
            .map_err(|_| ApiError::TooManyStreams { of: self.of, limit: self.limit })
    }
}
