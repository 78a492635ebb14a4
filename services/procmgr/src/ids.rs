//! The id of an instance, judged by the rule that all daemons share: it names folders and sockets here.

pub(crate) use nexushub_chassis::names::{BadInstanceId as BadId, InstanceId};
