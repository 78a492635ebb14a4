//! Whatever happens, as the owner task is told of it.

use std::sync::Arc;

use nexushub_proto::procmgr::ListDriversResponse;
use tokio::sync::oneshot;

use crate::{
    adopt::Examination,
    desired::DesiredSet,
    driver::Drivers,
    effects::Kept,
    error::ProcmgrError,
    exit::Exit,
    generation::{Failure, Generation},
    ids::InstanceId,
    orders::Pause,
    state::Probed,
};

/// Whatever happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// The provider says what should exist.
    Desired(DesiredSet),
    /// The search for the drivers of this machine ended.
    Drivers(Drivers),
    /// An examination ended.
    Examined {
        /// Of this instance.
        id: InstanceId,
        /// What it found.
        examination: Examination,
    },
    /// A start ended.
    Started {
        /// Of this instance.
        id: InstanceId,
        /// On the port that was reserved for it, if one was.
        port: Option<u16>,
        /// The live generation, or why there is none.
        result: Result<Arc<Generation>, Failure>,
    },
    /// A generation ended.
    Ended {
        /// Of this instance.
        id: InstanceId,
        /// This one.
        generation: u64,
        /// So.
        exit: Exit,
    },
    /// A health check ended.
    Probed {
        /// Of this instance.
        id: InstanceId,
        /// Of this generation.
        generation: u64,
        /// So.
        result: Probed,
    },
    /// Somebody sends nothing more to a generation that drains.
    Released {
        /// Of this instance.
        id: InstanceId,
        /// This one.
        generation: u64,
        /// This one does.
        holder: String,
    },
    /// Somebody has had no request for a generation for a while.
    Idle {
        /// Of this instance.
        id: InstanceId,
        /// This one.
        generation: u64,
        /// This one has.
        holder: String,
    },
    /// An instance that is to fall asleep would still do so if procmgr were killed, as far as that could be kept.
    SleepKept(InstanceId),
    /// Somebody asks for an instance that may be asleep.
    Wake(InstanceId),
    /// One that may hold generations has gone away.
    HolderLeft,
    /// Somebody asks for a restart.
    Restart {
        /// Of this instance.
        id: InstanceId,
        /// The answer.
        reply: oneshot::Sender<Result<(), ProcmgrError>>,
        /// Learns whether it could be kept.
        kept: Kept,
    },
    /// An instance is to be paused, or to be so no longer; answered with whether it was, once that is kept.
    Pause {
        /// This one.
        id: InstanceId,
        /// So; none = no longer.
        pause: Option<Pause>,
        /// The answer, and when it is kept.
        reply: oneshot::Sender<Result<bool, ProcmgrError>>,
        /// Learns whether it could be kept.
        kept: Kept,
    },
    /// Somebody asks what this machine has of each driver.
    ListDrivers(oneshot::Sender<ListDriversResponse>),
    /// Everything is to be stopped; answered with how many were, when they are.
    StopAll(oneshot::Sender<u32>),
}
