//! One connection of the generator: a socket, TLS on it or not, and the speech that goes over it.

use std::{
    io::{self, BufRead, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use rustls_pki_types::ServerName;

use super::speech::Speech;

/// What is read at once.
const ROOM: usize = 256 * 1024;

/// Room for what a link reads; one for all links of a thread.
pub(crate) fn room() -> Vec<u8> {
    vec![0; ROOM]
}

/// Where a link leads, and what it speaks before HTTP.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// The name that is asked for, and with what, each link in its turn; none = no TLS.
    pub(crate) tls: Option<(ServerName<'static>, Vec<Arc<ClientConfig>>)>,
}

/// The connection. What is said may wait here until the socket takes it.
pub(crate) struct Link {
    pub(crate) tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
    speech: Box<dyn Speech>,
    /// Said by the speech and not yet by the link.
    out: Vec<u8>,
    /// Bytes of content, both ways.
    pub(crate) moved: u64,
}

impl Link {
    /// Connects, as the link of some number; what the speech begins with is said with the first flush.
    ///
    /// # Errors
    /// When nobody listens.
    pub(crate) fn open(target: &Target, number: usize, mut speech: Box<dyn Speech>) -> io::Result<Self> {
        let tcp = TcpStream::connect(target.address)?;
        tcp.set_nonblocking(true)?;
        tcp.set_nodelay(true)?;
        let tls = target.tls.as_ref().map(|(name, configs)| {
            let config = &configs[number % configs.len()];
            let mut tls =
                ClientConnection::new(Arc::clone(config), name.clone()).expect("a usable configuration");
            tls.set_buffer_limit(None);
            Box::new(tls)
        });
        let mut out = Vec::new();
        speech.open(&mut out);
        Ok(Self { tcp, tls, speech, out, moved: 0 })
    }

    /// Says one more request with the next flush.
    pub(crate) fn ask(&mut self) {
        self.speech.ask(&mut self.out);
    }

    /// Says what there is until the socket takes no more: whether all was said.
    ///
    /// # Errors
    /// When the peer is gone.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        loop {
            if !self.write()? {
                return Ok(false);
            }
            self.speech.more(&mut self.out);
            if self.out.is_empty() {
                return Ok(true);
            }
        }
    }

    fn write(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            while !self.out.is_empty() {
                match blocked(self.tcp.write(&self.out))? {
                    Some(length) => {
                        self.moved += length as u64;
                        self.out.drain(..length);
                    }
                    None => return Ok(false),
                }
            }
            return Ok(true);
        };
        tls.writer().write_all(&self.out)?;
        self.moved += self.out.len() as u64;
        self.out.clear();
        while tls.wants_write() {
            if blocked(tls.write_tls(&mut self.tcp))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hears what there is to hear, once: how many requests it finished.
    ///
    /// # Errors
    /// When the peer is gone, or answers something else.
    pub(crate) fn hear(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(length) = blocked(self.tcp.read(room))? else { return Ok(0) };
        let mut bytes = &room[..length];
        let Some(tls) = &mut self.tls else {
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.moved += length as u64;
            return self.speech.hear(bytes, &mut self.out).map_err(io::Error::other);
        };
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut finished = 0;
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            tls.process_new_packets().map_err(io::Error::other)?;
            let mut reader = tls.reader();
            while let Some(content) = blocked(reader.fill_buf())?.filter(|content| !content.is_empty()) {
                let length = content.len();
                finished += self.speech.hear(content, &mut self.out).map_err(io::Error::other)?;
                reader.consume(length);
                self.moved += length as u64;
            }
        }
        Ok(finished)
    }

    /// Whether its handshake took up an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        self.tls.as_ref().and_then(|tls| tls.handshake_kind()) == Some(HandshakeKind::Resumed)
    }
}

/// None where there is nothing to be done now.
fn blocked<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
