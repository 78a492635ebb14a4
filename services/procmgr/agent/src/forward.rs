//! Connections of one kind become connections of another, here and on the host. Two threads with a small buffer each: a guest
//! has few connections at a time, and a program without an event loop stays small.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs::File, thread, time::Duration};

use nix::sys::socket::{Shutdown, shutdown};

const BUFFER: usize = 32 << 10;
const STACK: usize = 64 << 10;
/// Connections at the same time; a further one is closed at once.
const MOST: usize = 512;

/// Joins each accepted connection with a new one, for ever. Both are stream sockets.
pub fn serve<A, C>(accept: A, connect: C) -> !
where
    A: Fn() -> io::Result<File>,
    C: Fn() -> io::Result<File> + Clone + Send + 'static,
{
    serve_most(MOST, accept, connect)
}

fn serve_most<A, C>(most: usize, accept: A, connect: C) -> !
where
    A: Fn() -> io::Result<File>,
    C: Fn() -> io::Result<File> + Clone + Send + 'static,
{
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok(here) = accept() else {
            thread::sleep(Duration::from_millis(100)); // out of descriptors or memory: somebody has to end first
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= most {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (ours, connect) = (Arc::clone(&open), connect.clone());
        let served = thread::Builder::new().stack_size(STACK).spawn(move || {
            let _ = connect().and_then(|there| join(&here, &there));
            ours.fetch_sub(1, Ordering::Relaxed);
        });
        if served.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Until both directions have ended.
fn join(here: &File, there: &File) -> io::Result<()> {
    let (from, to) = (there.try_clone()?, here.try_clone()?);
    let back = thread::Builder::new().stack_size(STACK).spawn(move || {
        pass(&from, &to);
        let _ = shutdown(to.as_raw_fd(), Shutdown::Write);
    })?;
    pass(here, there);
    let _ = shutdown(there.as_raw_fd(), Shutdown::Write);
    let _ = back.join();
    Ok(())
}

/// Until one side has nothing more to say or the other does not listen any more.
fn pass(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) if to.write_all(&buffer[..length]).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::{fd::OwnedFd, unix::net::UnixStream};

    #[test]
    fn one_connection_too_many_is_closed_and_a_place_that_is_free_again_is_taken() {
        let [from, to] = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [outer, inner] = [&from, &to].map(|listener| listener.local_addr().unwrap());
        let file = |socket: TcpStream| File::from(OwnedFd::from(socket));
        let accept = move || from.accept().map(|(socket, _)| file(socket));
        let connect = move || TcpStream::connect(inner).map(file);
        thread::spawn(move || serve_most(2, accept, connect));
        let client = || TcpStream::connect(outer).unwrap();
        let mut served: Vec<_> = (0..2).map(|_| (client(), to.accept().unwrap().0)).collect();
        assert_eq!(client().read(&mut [0]).unwrap(), 0, "the third is closed");
        drop(served.pop());
        // The place is free when both of its threads have seen that.
        to.set_nonblocking(true).unwrap();
        let next = loop {
            let mut waiting = client();
            waiting.set_nonblocking(true).unwrap();
            let (mut joined, mut closed) = (to.accept(), waiting.read(&mut [0]));
            while joined.is_err()
                && closed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            {
                thread::yield_now();
                (joined, closed) = (to.accept(), waiting.read(&mut [0]));
            }
            if let Ok((there, _)) = joined {
                break (waiting, there);
            }
        };
        drop((next, served));
    }

    #[test]
    fn bytes_pass_both_ways_until_their_end() {
        let bytes: Vec<u8> = (0..BUFFER * 3 + 7).map(|at| at.to_le_bytes()[0]).collect();
        let file = |socket: UnixStream| File::from(OwnedFd::from(socket));
        let ((mut client, here), (mut server, there)) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let joined = thread::spawn(move || join(&file(here), &file(there)));
        let said = bytes.clone();
        let saying = thread::spawn(move || {
            client.write_all(&said).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        });
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).unwrap();
        server.write_all(b"thanks").unwrap();
        drop(server);
        assert!(heard == bytes && saying.join().unwrap() == "thanks");
        joined.join().unwrap().unwrap();
    }
}
