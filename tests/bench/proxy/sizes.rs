//! How long the bodies are, for those who ask and the one who answers.

/// The small body: an answer of an API.
pub(crate) const SMALL: usize = 1024;
/// The middle one: a picture.
pub(crate) const MIDDLE: usize = 100 * 1024;
/// The large one: a download.
pub(crate) const LARGE: usize = 100 * 1024 * 1024;
