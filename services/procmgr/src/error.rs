//! What can be wrong with a call, and the one place where it becomes a status.

use nexushub_shim::reader::BadCursor;
use tonic::{Code, Status};

use crate::{
    ids::{BadId, InstanceId},
    orders::MESSAGE_BYTES,
};

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
pub enum ProcmgrError {
    /// The id can't be one.
    #[error(transparent)]
    BadId(#[from] BadId),
    /// There is no such instance.
    #[error("there is no instance {0}; `nexushub status` lists them")]
    UnknownInstance(InstanceId),
    /// There is no log of it.
    #[error("there is no log of an instance {0}; it never ran here, or was removed long ago")]
    NoLog(InstanceId),
    /// It exists, but is not to run.
    #[error("instance {0} cannot be restarted: {1}")]
    CannotRestart(InstanceId, String),
    /// Too many streams.
    #[error("there are already {limit} {what}; end one of them or raise {key} in [procmgr]")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: u32,
        /// Where it is set.
        key: &'static str,
    },
    /// A position in a log can't be one.
    #[error("the position is not one of a log entry; leave it out to read from the oldest kept")]
    BadPosition(#[source] BadCursor),
    /// A holder's name can't be one.
    #[error("holder is not a name of 1 to 64 bytes")]
    BadHolder,
    /// The message of a pause is too long.
    #[error("the message is longer than {MESSAGE_BYTES} bytes")]
    LongMessage,
    /// An order could not be kept.
    #[error(
        "it counts now, but could not be kept for a restart of procmgr; see that its disk has room and ask again"
    )]
    NotKept(#[source] std::io::Error),
    /// A log can't be read.
    #[error("the log of instance {0} cannot be read")]
    Log(InstanceId, #[source] std::io::Error),
    /// procmgr is ending.
    #[error("procmgr is ending; ask again in a moment")]
    Ending,
}

impl From<ProcmgrError> for Status {
    fn from(error: ProcmgrError) -> Self {
        let code = match &error {
            ProcmgrError::BadId(_)
            | ProcmgrError::BadPosition(_)
            | ProcmgrError::BadHolder
            | ProcmgrError::LongMessage => Code::InvalidArgument,
            ProcmgrError::UnknownInstance(_) | ProcmgrError::NoLog(_) => Code::NotFound,
            ProcmgrError::CannotRestart(..) => Code::FailedPrecondition,
            ProcmgrError::TooMany { .. } => Code::ResourceExhausted,
            ProcmgrError::Log(..) => Code::Internal,
            ProcmgrError::Ending | ProcmgrError::NotKept(_) => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_error_keeps_its_text_and_hides_its_source() {
        let id = InstanceId::parse("shop").unwrap();
        let status = Status::from(ProcmgrError::Log(id.clone(), std::io::Error::other("/secret/path")));
        assert_eq!(
            (status.code(), status.message()),
            (Code::Internal, "the log of instance shop cannot be read")
        );
        assert_eq!(Status::from(ProcmgrError::UnknownInstance(id)).code(), Code::NotFound);
        assert_eq!(
            Status::from(ProcmgrError::from(InstanceId::parse("..").unwrap_err())).code(),
            Code::InvalidArgument
        );
    }
}
