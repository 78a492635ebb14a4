//! What is public: of the chassis the names that strangers type, of the shim its log, its records and its words with procmgr, and
//! what a daemon tells its parent; of the agent what it hears at its start and what both sides of a microVM's wall say afterwards.

use nexushub_agent::{
    config::Config,
    word::{MAX_BYTES, Order, Word},
};
use nexushub_chassis::{
    launch::notify,
    names::{HostName, HttpUrl, InstanceId, Zone, is_name, place, shown},
};
use nexushub_shim::{
    control::{Reply, Request},
    exit::Exit,
    frame,
    identity::Stat,
    reader::cursor::LogCursor,
    record::Record,
    segment,
    spec::Spec,
};

use crate::Target;

pub(crate) const TARGETS: [(&str, Target); 8] = [
    ("names", names),
    ("notices", notices),
    ("log", log),
    ("cursor", cursor),
    ("control", control),
    ("records", records),
    ("guests", guests),
    ("words", words),
];

/// What is taken for a name is one, written as it reads; what isn't can be shown.
fn names(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let zone = Zone::new("yesterday.localhost", 8443);
    if let Ok(name) = HostName::parse(text, &zone) {
        let stored = name.as_str();
        assert!(is_name(stored), "{stored:?}");
        assert_eq!(HostName::parse(stored, &zone).ok(), Some(name.clone()), "{stored:?}");
    }
    if let Ok(id) = InstanceId::parse(text) {
        assert!(
            !id.as_str().contains(['/', '\0']) && !id.as_str().starts_with('.'),
            "{id:?} is a file's name"
        );
    }
    let _ = (HttpUrl::parse(text), place(text, "yesterday.localhost")); // whatever they say, they say it
    assert!(!shown(text).contains(|byte: char| byte.is_control()));
}

/// What a daemon tells its parent: fields, none of which has a line end in it.
fn notices(bytes: &[u8]) {
    for (name, value) in notify::parse(bytes) {
        assert!(!name.contains('\n') && !value.contains('\n'));
    }
}

/// A log after a crash: whatever is read of it was written, byte for byte.
fn log(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((entry, length)) = frame::decode(rest) {
        let mut again = Vec::new();
        entry.encode(&mut again);
        let (flags, said) = (33 - 4, &rest[..length]); // of the flags only two bits mean something
        if said[flags] <= 3 {
            assert_eq!(again, said);
        }
        rest = &rest[length..];
    }
    // The search does not guess checksums: the same as an entry's payload.
    let payload = &bytes[..bytes.len().min(frame::PAYLOAD_MAX)];
    let number = bytes.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
    let entry = frame::Frame {
        seq: number,
        unix_ms: number.cast_signed(),
        stream: frame::Stream::Stderr,
        partial: number & 1 == 1,
        gap: number & 2 == 2,
        pid: 7,
        payload,
    };
    let mut out = Vec::new();
    entry.encode(&mut out);
    assert_eq!(frame::decode(&out), Some((entry, out.len())));
    assert_eq!(frame::decode(&out[..out.len() - 1]), None);
    let at = bytes.len() % out.len();
    out[at] ^= 0x10;
    assert_eq!(frame::decode(&out), None, "byte {at} was changed");
}

/// A place in a log, as clients bring it back.
fn cursor(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let _ = segment::Name::parse(text);
    if let Ok(cursor) = text.parse::<LogCursor>() {
        assert_eq!(cursor.to_string().parse().ok(), Some(cursor.clone()));
        assert!(cursor.join(&cursor) == cursor, "{cursor:?}");
    }
}

/// What procmgr and a shim say to each other.
fn control(bytes: &[u8]) {
    if let Some((nonce, request)) = Request::parse(bytes) {
        let line = request.encode(nonce);
        let read = line.strip_suffix('\n').and_then(|line| Request::parse(line.as_bytes()));
        assert_eq!(read, Some((nonce, request)), "{line:?}");
    }
    if let Some(reply) = Reply::parse(bytes) {
        assert_eq!(Reply::parse(reply.to_string().as_bytes()), Some(reply));
    }
    Stat::parse(bytes);
}

/// What is kept beside an app that runs.
fn records(bytes: &[u8]) {
    macro_rules! reads_as_written {
        ($($document:ty),*) => {$(
            if let Ok(read) = <$document>::decode(bytes) {
                let again = read.encode().and_then(|bytes| <$document>::decode(&bytes));
                assert!(again.is_ok_and(|again| again == read), stringify!($document));
            }
        )*};
    }
    reads_as_written!(Record, Exit, Spec);
}

/// What a guest is to be, as its agent reads it.
fn guests(bytes: &[u8]) {
    if let Ok(config) = Config::decode(bytes) {
        assert_eq!(Config::decode(&config.encode()), Ok(config));
    }
}

/// What comes out of a microVM, and what goes in: whatever a hostile guest says, one bounded line is believed.
fn words(bytes: &[u8]) {
    let Ok(line) = str::from_utf8(bytes) else { return };
    if let Ok(word) = line.parse::<Word>() {
        let said = word.to_string();
        assert!(said.len() < MAX_BYTES && !said.contains(char::is_control), "{said:?}");
        assert_eq!(said.parse(), Ok(word), "{said:?}");
    }
    if let Ok(order) = line.parse::<Order>() {
        assert_eq!(order.to_string(), line);
    }
}
