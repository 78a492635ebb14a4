//! Why a request is refused, and the one place where that becomes a gRPC status.

use std::{io, path::PathBuf};

use nexushub_chassis::{
    Fault,
    names::{InstanceId, shown},
};
use tonic::Status;

use crate::{merge::Conflict, typed::BadField};

/// A refused request. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request holds no instance.
    #[error("the request holds no instance")]
    Missing,
    /// A value can't be.
    #[error(transparent)]
    Bad(#[from] BadField),
    /// The configuration can't be.
    #[error("{}: {} ({})", .0.object, .0.msg, .0.hint)]
    Configuration(Fault),
    /// The host name or the id is another's.
    #[error("{0}; choose another, or remove that instance first")]
    Taken(Box<Conflict>),
    /// Only debug instances come and go by RPC.
    #[error("instance `{id}` is {origin}; change it where it was configured")]
    NotDebug {
        /// Which.
        id: InstanceId,
        /// Where it was configured.
        origin: String,
    },
    /// There are as many debug instances as there may be.
    #[error(
        "there are {0} debug instances, as many as provider.max_debug_instances allows; remove one first"
    )]
    TooMany(usize),
    /// The desired state would no longer fit into one message.
    #[error(
        "the desired state would grow to {0} bytes, more than one message holds; remove an instance first"
    )]
    TooLarge(usize),
    /// There is no such package.
    #[error("application {} has no package at `{}`", shown(app_id), path.display())]
    NoRelease {
        /// Whose.
        app_id: String,
        /// Where it would lie.
        path: PathBuf,
    },
    /// The change could not be made durable.
    #[error("could not write `{path}`: {source}; nothing was changed")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon is on its way out.
    #[error("provider is stopping; try again in a moment")]
    Stopping,
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Missing | Error::Bad(_) | Error::Configuration(_) => Self::invalid_argument(message),
            Error::Taken(_) => Self::already_exists(message),
            Error::NoRelease { .. } => Self::not_found(message),
            // Not RESOURCE_EXHAUSTED, which means load: a limit that stays is not to be tried again.
            Error::NotDebug { .. } | Error::TooMany(_) | Error::TooLarge(_) => {
                Self::failed_precondition(message)
            }
            Error::Unwritable { .. } | Error::Stopping => Self::unavailable(message),
        }
    }
}
