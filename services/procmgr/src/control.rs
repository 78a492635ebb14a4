//! Asking a shim, without a thread per question. Who answers is known: the peer's pid comes with the answer.

use std::{fs::File, io, path::Path, time::Duration};

use nexushub_shim::control::{LINE_MAX, Reply, Request, SOCKET, address};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

/// An answer and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What was said.
    pub reply: Reply,
    /// The process that said it.
    pub peer: u32,
}

/// Asks the shim of a generation's folder; without a patience, for as long as it takes.
pub(crate) async fn ask(
    dir: &Path,
    nonce: &str,
    request: Request,
    patience: Option<Duration>,
) -> io::Result<Answer> {
    let exchange = exchange(dir, nonce, request);
    match patience {
        None => exchange.await,
        Some(patience) => match tokio::time::timeout(patience, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the shim does not answer")),
        },
    }
}

async fn exchange(dir: &Path, nonce: &str, request: Request) -> io::Result<Answer> {
    let mut stream = {
        // Open only until connected: thousands may wait for their answers at once.
        let folder = File::open(dir)?;
        UnixStream::connect(address(&folder, SOCKET)).await?
    };
    let peer = stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
    stream.write_all(request.encode(nonce).as_bytes()).await?;
    let mut line = Vec::new();
    let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
    BufReader::new(stream).take(limit).read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the shim hung up"));
    }
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the shim's reply is malformed");
    Reply::parse(&line).map(|reply| Answer { reply, peer }).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_shim::{control, exit::End};

    use super::*;

    async fn shim(says: &'static [u8], patience: Option<Duration>) -> io::Result<Answer> {
        let dir = tempfile::tempdir().unwrap();
        let listener = control::bind(dir.path()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        let answering = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = [0; 64];
            let n = stream.read(&mut heard).await.unwrap();
            assert_eq!(&heard[..n], b"wait ab\n");
            stream.write_all(says).await.unwrap();
            if says.is_empty() && patience.is_some() {
                std::future::pending::<()>().await;
            }
        };
        let until_asked = async {
            answering.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = ask(dir.path(), "ab", Request::Wait, patience) => answer,
            () = until_asked => unreachable!(),
        }
    }

    #[tokio::test]
    async fn an_answer_comes_with_the_process_that_gave_it() {
        let answer = shim(b"exited code=3\n", None).await.unwrap();
        assert_eq!(answer, Answer { reply: Reply::Exited(End::Code(3)), peer: std::process::id() });
    }

    #[tokio::test]
    async fn silence_a_hang_up_and_nonsense_are_errors() {
        let kind = |outcome: io::Result<Answer>| outcome.unwrap_err().kind();
        assert_eq!(kind(shim(b"", Some(Duration::from_millis(50))).await), io::ErrorKind::TimedOut);
        assert_eq!(kind(shim(b"exited co", None).await), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(shim(b"\xff\x00\n", None).await), io::ErrorKind::InvalidData);
        let long: &'static [u8] = Vec::leak(vec![b'x'; 1000]);
        assert!(shim(long, None).await.is_err());
        let nobody = ask(Path::new("/nonexistent"), "ab", Request::Wait, None).await;
        assert_eq!(kind(nobody), io::ErrorKind::NotFound);
    }
}
