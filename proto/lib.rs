//! The contract between NexusHub's daemons: messages, clients and servers generated from `proto/`, one module a daemon,
//! and the descriptor set from which every daemon serves reflection. Only additive change within v1.

#![allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all, clippy::pedantic)] // generated code; the protos carry the prose
#![allow(
    clippy::too_many_lines,
    clippy::uninlined_format_args,
    clippy::semicolon_if_nothing_returned,
    clippy::needless_pass_by_value
)]

/// `nexushub.provider.v1`: what should exist.
pub mod provider {
    tonic::include_proto!("nexushub.provider.v1");
}

/// `nexushub.procmgr.v1`: what does exist.
pub mod procmgr {
    tonic::include_proto!("nexushub.procmgr.v1");
}

/// `nexushub.proxy.v1`: routes and counters.
pub mod proxy {
    tonic::include_proto!("nexushub.proxy.v1");
}

/// `nexushub.debugapi.v1`: developers' applications.
pub mod debugapi {
    tonic::include_proto!("nexushub.debugapi.v1");
}

/// Every file of the contract, encoded as a `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nexushub.bin"));
