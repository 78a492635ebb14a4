//! What a client says on one connection and how it understands the answers: no input, no output, no clock.

mod h1;
mod h2;
mod websocket;

pub(crate) use h1::H1;
pub(crate) use h2::H2;
pub(crate) use websocket::WebSocket;

/// One connection's side of a protocol.
pub(crate) trait Speech {
    /// What comes before the first request.
    fn open(&mut self, _out: &mut Vec<u8>) {}

    /// The next request.
    fn ask(&mut self, out: &mut Vec<u8>);

    /// The next piece of a long request; nothing when there is none.
    fn more(&mut self, _out: &mut Vec<u8>) {}

    /// How many requests the bytes that came have finished, and what has to be said about them.
    ///
    /// # Errors
    /// When an answer is not what was asked for.
    fn hear(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, String>;
}
