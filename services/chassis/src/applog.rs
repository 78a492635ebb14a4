//! An app's log as those read it who ask procmgr for it: debug-api for developers, the command line for operators. What to ask
//! for and what to tell of it (`reading.rs`), which lines are wanted (`filter.rs`), what level a line tells (`level.rs`), pieces
//! put together (`joiner.rs`), and the words for programs and for people (`line.rs`). One home, so that the same word means the same at both. Pure.
//!
//! A line is judged when it is whole, so by whoever puts its pieces together; procmgr passes on bytes and reads none of them.

mod filter;
mod joiner;
mod level;
mod line;
mod reading;

pub use filter::{BadWish, Filter, since};
pub use joiner::Joiner;
pub use level::{Level, told};
pub use line::{alive, end, gap, gap_words, json, plain, stream, system};
pub use reading::{Begin, Reading, Told};
