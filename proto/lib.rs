//! The contract between NexusHub's daemons: messages, clients and servers generated from `proto/`, one module a daemon,
//! and the descriptor set from which every daemon serves reflection. Only additive change within v1.

#![allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all, clippy::pedantic)] // generated code; the protos carry the prose
#![allow(
    clippy::too_many_lines,
    clippy::uninlined_format_args,
    clippy::semicolon_if_nothing_returned,
    clippy::needless_pass_by_value
)]

/// As deep as the packages are, since one may use another's messages by that path.
mod nexushub {
    pub mod provider {
        pub mod v1 {
            tonic::include_proto!("nexushub.provider.v1");
        }
    }
    pub mod procmgr {
        pub mod v1 {
            tonic::include_proto!("nexushub.procmgr.v1");
        }
    }
    pub mod proxy {
        pub mod v1 {
            tonic::include_proto!("nexushub.proxy.v1");
        }
    }
    pub mod debugapi {
        pub mod v1 {
            tonic::include_proto!("nexushub.debugapi.v1");
        }
    }
}

/// `nexushub.debugapi.v1`: developers' applications.
pub use nexushub::debugapi::v1 as debugapi;
/// `nexushub.procmgr.v1`: what does exist.
pub use nexushub::procmgr::v1 as procmgr;
/// `nexushub.provider.v1`: what should exist.
pub use nexushub::provider::v1 as provider;
/// `nexushub.proxy.v1`: routes and counters.
pub use nexushub::proxy::v1 as proxy;

/// Every file of the contract, encoded as a `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nexushub.bin"));
