//! What a client hears: bytes in, answers out, read by the letter (RFC 9112), so that one that is cut short is not taken for whole.

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    /// What the echo said it understood; empty when the answer is not the echo's.
    pub(crate) line: String,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    /// Whether somebody said that there was no request.
    pub(crate) fn is_refusal(&self) -> bool {
        self.line.is_empty()
    }

    /// The same, no matter which of the hosts it was said to, which differ in their last character, and how its target was
    /// spelled: Caddy writes some characters as escapes, nghttpx two slashes as one.
    pub(crate) fn without(mut self, host: &str) -> Self {
        let common = format!("{}*", &host[..host.len() - 1]);
        self.line = unescaped(&self.line.replace(host, &common)).replace("//", "/");
        let starts =
            self.body.windows(host.len()).enumerate().filter(|(_, window)| *window == host.as_bytes());
        let ends: Vec<usize> = starts.map(|(at, _)| at + host.len() - 1).collect();
        ends.into_iter().for_each(|at| self.body[at] = b'*');
        self
    }
}

fn unescaped(line: &str) -> String {
    let (mut text, mut pieces) = (String::new(), line.split('%'));
    text += pieces.next().unwrap_or_default();
    for piece in pieces {
        match piece.get(..2).map(|digits| u8::from_str_radix(digits, 16)) {
            Some(Ok(byte)) => text += &format!("{}{}", char::from(byte), &piece[2..]),
            _ => text += &format!("%{piece}"),
        }
    }
    text
}

/// All whole answers in these bytes, and whether something is left that is none. `method`: what the first one answers, where that
/// is known.
pub(crate) fn answers(mut bytes: &[u8], method: Option<&str>) -> (Vec<Heard>, bool) {
    let mut heard: Vec<Heard> = Vec::new();
    while !bytes.is_empty() {
        let Some((answer, rest)) = answer(bytes, method.map(|method| method == "HEAD" && heard.is_empty()))
        else {
            return (heard, true);
        };
        bytes = rest;
        if answer.status >= 200 {
            heard.push(answer);
        }
    }
    (heard, false)
}

fn answer(bytes: &[u8], head: Option<bool>) -> Option<(Heard, &[u8])> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (text, rest) = (str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 4..]);
    let mut lines = text.split("\r\n");
    let first = lines.next()?.strip_prefix("HTTP/1.")?;
    let status: u16 = first.get(2..5)?.parse().ok()?;
    let field = |name: &str| {
        let mut pairs = text.split("\r\n").filter_map(|line| line.split_once(':'));
        pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let line = field("x-echo").unwrap_or_default().to_owned();
    // A client that asked in riddles doesn't know which of its words was taken for HEAD; no refusal begins like an answer.
    let bodiless = head.unwrap_or(false)
        || line.starts_with("HEAD ")
        || status < 200
        || matches!(status, 204 | 304)
        || (head.is_none() && line.is_empty() && (rest.is_empty() || rest.starts_with(b"HTTP/1.")));
    let (body, rest) = if bodiless {
        (Vec::new(), rest)
    } else if field("transfer-encoding").is_some() {
        chunks(rest)?
    } else if let Some(length) = field("content-length") {
        let length: usize = length.parse().ok()?;
        (rest.get(..length)?.to_vec(), &rest[length..])
    } else {
        (rest.to_vec(), &rest[rest.len()..])
    };
    Some((Heard { status, line, body }, rest))
}

fn chunks(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(str::from_utf8(&bytes[..end]).ok()?.split(';').next()?, 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            let end = bytes.windows(2).position(|two| two == b"\r\n")?;
            let trailers =
                if end == 0 { 2 } else { bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4 };
            return Some((body, &bytes[trailers..]));
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size..)?.strip_prefix(b"\r\n")?;
    }
}
