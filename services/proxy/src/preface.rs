//! The PROXY protocol, versions 1 and 2: a load balancer that passes connections on says before anything else whose they are.
//! It is believed only from addresses that the configuration names, and from those it must come
//! (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// No line of version 1 is longer, its end included.
const LINE: usize = 107;
/// No rest of version 2 is taken that is longer: the addresses, and room for what else is told.
const REST: usize = 2048;

/// Takes it off the front of a connection: whose it is, if that is said. Not one byte more is read.
///
/// # Errors
/// `InvalidData` if it is none, and what reading says.
pub(crate) async fn take(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut first = [0; SIGNATURE.len()];
    stream.read_exact(&mut first).await?;
    if first != SIGNATURE {
        let mut line = Vec::from(first);
        while !line.ends_with(b"\n") && line.len() < LINE {
            line.push(stream.read_u8().await?);
        }
        return version_1(&line).ok_or_else(malformed);
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if length > REST {
        return Err(malformed());
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    version_2([head[0], head[1]], &rest).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed PROXY protocol")
}

/// `PROXY TCP4 source destination port port` or `PROXY UNKNOWN ...`; nothing if it is none of them.
fn version_1(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Some(None),
        ["PROXY", family, source, destination, from, to] => {
            let (source, destination): (IpAddr, IpAddr) = (source.parse().ok()?, destination.parse().ok()?);
            let right = match *family {
                "TCP4" => source.is_ipv4() && destination.is_ipv4(),
                "TCP6" => source.is_ipv6() && destination.is_ipv6(),
                _ => false,
            };
            port(to)?;
            right.then_some(Some(SocketAddr::new(source, port(from)?)))
        }
        _ => None,
    }
}

fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// The two bytes after the signature and what follows the length; nothing if it is none.
fn version_2([version_command, family]: [u8; 2], rest: &[u8]) -> Option<Option<SocketAddr>> {
    match version_command {
        0x20 => return Some(None), // the balancer itself, which looks whether we are there
        0x21 => {}
        _ => return None,
    }
    match family {
        0x11 => {
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *rest.first_chunk::<12>()?;
            let address = Ipv4Addr::new(a, b, c, d);
            Some(Some(SocketAddr::from((address, u16::from_be_bytes([high, low])))))
        }
        0x21 => {
            let addresses = rest.first_chunk::<36>()?;
            let source = Ipv6Addr::from(*addresses.first_chunk::<16>()?);
            Some(Some(SocketAddr::from((source, u16::from_be_bytes([addresses[32], addresses[33]])))))
        }
        0x00 => Some(None),
        _ => None, // not a stream of the internet's
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Whose it is said to be, and what is left for the next reader.
    fn read(bytes: &[u8]) -> io::Result<(Option<SocketAddr>, Vec<u8>)> {
        let mut stream = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(take(&mut stream)).map(|peer| (peer, stream.to_vec()))
    }

    fn second(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest, b"next"].concat()
    }

    fn peer(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_line_says_whose_the_connection_is_and_nothing_more_is_read() {
        for (line, whose) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", peer("192.0.2.7:56324")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n", peer("[2001:db8::7]:1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
        ] {
            assert_eq!(read(format!("{line}next").as_bytes()).unwrap(), (whose, b"next".to_vec()), "{line}");
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 01 443\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 1 443\r\n",
            "proxy TCP4 192.0.2.7 198.51.100.1 1 443\r\n",
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4",
        ] {
            assert!(read(line.as_bytes()).is_err(), "{line:?}");
        }
        assert!(read("PROXY UNKNOWN ".repeat(20).as_bytes()).is_err());
    }

    #[test]
    fn version_2_says_it_in_bytes() {
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 187];
        let mut more = four.to_vec();
        more.extend([0x04, 0, 1, 0]); // something else is told
        let six = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0, 9, 1, 187]].concat();
        for (bytes, whose) in [
            (second(0x21, 0x11, &four), peer("192.0.2.7:56324")),
            (second(0x21, 0x11, &more), peer("192.0.2.7:56324")),
            (second(0x21, 0x21, &six), peer("[::1]:9")),
            (second(0x20, 0x00, &[]), None),
            (second(0x21, 0x00, &[]), None),
        ] {
            assert_eq!(read(&bytes).unwrap(), (whose, b"next".to_vec()), "{bytes:?}");
        }
        for bytes in [
            second(0x11, 0x11, &four),
            second(0x22, 0x11, &four),
            second(0x21, 0x11, &four[..11]),
            second(0x21, 0x12, &four),
            second(0x21, 0x31, &[0; 216]),
            second(0x21, 0x11, &[0; REST + 1]),
        ] {
            assert!(read(&bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..128), second in any::<bool>()) {
            if second && bytes.len() > SIGNATURE.len() {
                bytes[..SIGNATURE.len()].copy_from_slice(&SIGNATURE);
            }
            let _ = read(&bytes);
            let _ = version_1(&bytes);
        }
    }
}
