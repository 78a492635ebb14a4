//! What each limit on an app may be, the least and the most: the one home of these numbers for provider, which judges instances, and
//! for debug-api, which judges what packages may ask for. The admin app, which imports nothing of the platform, says them once more
//! (`services/apps/admin/src/terms.rs`); `tests/house.rs` holds the two equal.

/// Bytes of memory; the least is what a program starts with.
pub const MEMORY: (u64, u64) = (8 << 20, 1 << 40);
/// Processor time; 100 = one core.
pub const CPU: (u64, u64) = (1, 102_400);
/// Processes and threads; the least is the box's own and a few of the app.
pub const PROCESSES: (u64, u64) = (4, 1 << 20);
/// Open files of one process.
pub const FILES: (u64, u64) = (16, 1 << 20);
/// Bytes of its data, and of its `/tmp`.
pub const DISK: (u64, u64) = (64 << 10, 1 << 40);
/// Bytes of disk for its log, which is dropped by the segment, of which it has two at least.
pub const LOG: (u64, u64) = (256 << 10, 1 << 40);
