//! One upload as a state machine. Pure: it knows which chunks are there, not where they are.
//!
//! ```text
//!            first chunk            last missing chunk             digest matches
//! (none) ───────────────▶ receiving ─────────────────▶ assembling ────────────────▶ complete
//!    ▲                     ▲  ▲ │ any chunk, any order,     │                          │
//!    │                     │  └─┘ a repeat overwrites       │ mismatch                 │ another hash or total
//!    │                     │                                ▼                          │
//!    └── restart ◀─────────┴── any chunk ◀────────────── failed                        │
//!                          ◀──────────────────────────────────────────────────────────-┘
//! ```
//! While receiving, chunk 0 of another file starts over; any other chunk of another file is refused. Invariant: nothing
//! is assembled unless every index below `total` is there, and each counts once.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::digests::Sha256Hex;

/// An MD5 digest as the contract writes it: 32 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Md5Hex(String);

impl Md5Hex {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then(|| Self(text.to_ascii_lowercase()))
    }

    pub(crate) fn of(digest: &[u8]) -> Self {
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for Md5Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which file: its digests, and into how many chunks it was cut. It has one of the digests at least,
/// unless it could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct File {
    /// Of what came in chunks, whose contract is about it; it takes longer to make than the bytes take to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hash: Option<Md5Hex>,
    /// Of a package always; of what a client announces only if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<Sha256Hex>,
    pub(crate) total: u32,
}

impl File {
    /// Whether both have the same bytes, as far as is known of them.
    pub(crate) fn same_bytes(&self, other: &Self) -> bool {
        let hash = self.hash.as_ref().zip(other.hash.as_ref()).map(|(one, another)| one == another);
        let sha256 = self.sha256.as_ref().zip(other.sha256.as_ref()).map(|(one, another)| one == another);
        let mut known = [hash, sha256].into_iter().flatten().peekable();
        known.peek().is_some() && known.all(|same| same)
    }

    /// The digest that it is known by.
    pub(crate) fn digest(&self) -> String {
        let sha256 = self.sha256.as_ref().map(ToString::to_string);
        sha256.or_else(|| self.hash.as_ref().map(ToString::to_string)).unwrap_or_default()
    }
}

/// What a chunk says of itself; its index is below its total.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) index: u32,
    pub(crate) file: File,
}

/// What is to be done with a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Keep it.
    Take,
    /// Forget what is there, then keep it.
    StartOver,
    /// The very file is there already.
    Superfluous,
    /// It belongs to another file.
    Foreign,
}

/// What there is after a chunk was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Partial,
    /// The last missing chunk: assemble now.
    Whole,
    /// The package would become larger than allowed; the chunk doesn't count.
    TooLarge,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Receiving,
    Assembling,
    Complete,
    Failed(String),
}

/// One upload session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    file: File,
    /// Index to size, of the chunks that are there.
    chunks: BTreeMap<u32, u64>,
    phase: Phase,
}

/// What a client is told about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) application_id: String,
    pub(crate) total_chunks: u32,
    pub(crate) received_chunks: u32,
    pub(crate) progress: f64,
    pub(crate) completed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// What a chunk means to an app without or with a session.
pub(crate) fn judge(session: Option<&Session>, claim: &Claim) -> Verdict {
    let Some(session) = session else { return Verdict::StartOver };
    let same = session.file.total == claim.file.total && session.file.same_bytes(&claim.file);
    match (&session.phase, same) {
        (Phase::Receiving, true) => Verdict::Take,
        (Phase::Complete | Phase::Assembling, true) => Verdict::Superfluous,
        (Phase::Failed(_) | Phase::Complete, _) => Verdict::StartOver,
        (Phase::Receiving, false) if claim.index == 0 => Verdict::StartOver,
        (Phase::Receiving | Phase::Assembling, false) => Verdict::Foreign,
    }
}

impl Session {
    pub(crate) fn new(file: File) -> Self {
        Self { file, chunks: BTreeMap::new(), phase: Phase::Receiving }
    }

    /// A session whose file is there already.
    pub(crate) fn complete(file: File) -> Self {
        Self { file, chunks: BTreeMap::new(), phase: Phase::Complete }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Bytes that it has on the disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.chunks.values().sum()
    }

    /// Whether it still waits for chunks.
    pub(crate) fn is_receiving(&self) -> bool {
        self.phase == Phase::Receiving
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.phase == Phase::Complete
    }

    /// Whether nothing of it is under way any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Complete | Phase::Failed(_))
    }

    /// Records that chunk `index` of `size` bytes is there.
    pub(crate) fn receive(&mut self, index: u32, size: u64, max_bytes: u64) -> Progress {
        if self.phase != Phase::Receiving || index >= self.file.total {
            return Progress::Partial;
        }
        let others: u64 =
            self.chunks.iter().filter(|(other, _)| **other != index).map(|(_, size)| size).sum();
        if others.saturating_add(size) > max_bytes {
            return Progress::TooLarge;
        }
        self.chunks.insert(index, size);
        if self.count() < self.file.total {
            return Progress::Partial;
        }
        self.phase = Phase::Assembling;
        Progress::Whole
    }

    /// The file was assembled and its digests are right: this one it is.
    pub(crate) fn finish(&mut self, file: File) {
        *self = Self::complete(file);
    }

    /// The file was not assembled; the next chunk starts over.
    pub(crate) fn fail(&mut self, why: String) {
        self.chunks.clear();
        self.phase = Phase::Failed(why);
    }

    pub(crate) fn report(&self, application: &str) -> Report {
        let completed = self.is_complete();
        let received = if completed { self.file.total } else { self.count() };
        let error = match &self.phase {
            Phase::Failed(why) => Some(why.clone()),
            _ => None,
        };
        Report {
            application_id: application.to_owned(),
            total_chunks: self.file.total,
            received_chunks: received,
            progress: f64::from(received) * 100.0 / f64::from(self.file.total.max(1)),
            completed,
            file_hash: self.file.hash.as_ref().map(ToString::to_string),
            file_sha256: self.file.sha256.as_ref().map(ToString::to_string),
            error,
        }
    }

    fn count(&self) -> u32 {
        u32::try_from(self.chunks.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const NO_LIMIT: u64 = u64::MAX;

    fn file(fill: char, total: u32) -> File {
        File { hash: Md5Hex::parse(&fill.to_string().repeat(32)), sha256: None, total }
    }

    fn claim(index: u32, file: &File) -> Claim {
        Claim { index, file: file.clone() }
    }

    fn completed(file: &File) -> Session {
        Session::complete(file.clone())
    }

    #[test]
    fn a_digest_is_32_hex_digits_of_any_case() {
        assert_eq!(Md5Hex::parse(&"AB".repeat(16)).unwrap().to_string(), "ab".repeat(16));
        for text in ["", "a", &"g".repeat(32), &"a".repeat(33), "../../../../../../../../../../../"] {
            assert!(Md5Hex::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn files_of_the_same_md5_are_the_same_unless_their_sha_256_says_otherwise() {
        let with = |fill: &str| File { sha256: Sha256Hex::parse(&fill.repeat(64)), ..file('a', 1) };
        assert!(file('a', 1).same_bytes(&with("1")) && with("1").same_bytes(&with("1")));
        assert!(!with("1").same_bytes(&with("2")) && !file('a', 1).same_bytes(&file('b', 1)));
        let only = |fill: &str| File { hash: None, ..with(fill) };
        assert!(only("1").same_bytes(&with("1")) && !only("1").same_bytes(&with("2")));
        assert!(!only("1").same_bytes(&file('a', 1)), "nothing that both have says so");
        assert_eq!((only("1").digest(), file('a', 1).digest()), ("1".repeat(64), "a".repeat(32)));
        assert_eq!(judge(Some(&completed(&with("1"))), &claim(0, &file('a', 1))), Verdict::Superfluous);
        assert_eq!(judge(Some(&completed(&with("1"))), &claim(0, &with("2"))), Verdict::StartOver);
    }

    #[test]
    fn another_file_is_let_in_at_chunk_0_or_after_the_end_only() {
        let (old, new) = (file('a', 2), file('b', 3));
        let mut receiving = Session::new(old.clone());
        receiving.receive(0, 1, NO_LIMIT);
        assert_eq!(judge(None, &claim(2, &new)), Verdict::StartOver);
        assert_eq!(judge(Some(&receiving), &claim(1, &new)), Verdict::Foreign);
        assert_eq!(judge(Some(&receiving), &claim(1, &file('a', 3))), Verdict::Foreign, "another total");
        assert_eq!(judge(Some(&receiving), &claim(0, &new)), Verdict::StartOver);
        assert_eq!(judge(Some(&receiving), &claim(0, &old)), Verdict::Take);
        assert_eq!(judge(Some(&completed(&old)), &claim(1, &old)), Verdict::Superfluous);
        assert_eq!(judge(Some(&completed(&old)), &claim(1, &new)), Verdict::StartOver);
    }

    #[test]
    fn after_a_wrong_digest_the_same_or_another_file_starts_over() {
        let mut session = Session::new(file('a', 1));
        assert_eq!(session.receive(0, 1, NO_LIMIT), Progress::Whole);
        session.fail("digest".to_owned());
        let report = session.report("id");
        assert_eq!(
            (report.completed, report.received_chunks, report.error.as_deref()),
            (false, 0, Some("digest"))
        );
        assert_eq!(judge(Some(&session), &claim(0, &file('a', 1))), Verdict::StartOver);
        assert_eq!(judge(Some(&session), &claim(1, &file('b', 2))), Verdict::StartOver);
    }

    #[test]
    fn a_package_over_the_limit_is_refused_and_a_smaller_repeat_makes_room() {
        let mut session = Session::new(file('a', 3));
        assert_eq!(session.receive(0, 60, 100), Progress::Partial);
        assert_eq!(session.receive(1, 60, 100), Progress::TooLarge);
        assert_eq!(session.receive(0, 10, 100), Progress::Partial);
        assert_eq!(session.receive(1, 60, 100), Progress::Partial);
        assert_eq!(session.receive(2, 30, 100), Progress::Whole);
    }

    proptest! {
        #[test]
        fn any_order_with_any_repeats_completes_exactly_once_and_never_early(
            total in 1_u32..40,
            order in proptest::collection::vec(0_u32..40, 0..200),
        ) {
            let mut session = Session::new(file('a', total));
            let mut seen = std::collections::BTreeSet::new();
            let mut wholes = 0;
            for index in order.into_iter().chain(0..total) {
                if index < total {
                    seen.insert(index);
                }
                let whole = session.receive(index, 1, NO_LIMIT) == Progress::Whole;
                wholes += u32::from(whole);
                prop_assert!(!whole || seen.len() as u32 == total, "complete with chunks missing");
                let report = session.report("id");
                prop_assert!(report.progress.is_finite() && report.progress <= 100.0);
                prop_assert!(!report.completed, "complete before its digest was verified");
            }
            prop_assert_eq!(wholes, 1);
            session.finish(session.file().clone());
            prop_assert_eq!(session.report("id").received_chunks, total);
        }

        #[test]
        fn chunks_of_two_files_never_make_one(
            steps in proptest::collection::vec((any::<bool>(), 0_u32..4), 0..60),
        ) {
            let files = [file('a', 4), file('b', 4)];
            let mut session: Option<Session> = None;
            let mut held: std::collections::BTreeSet<(bool, u32)> = std::collections::BTreeSet::new();
            for (which, index) in steps {
                let claim = claim(index, &files[usize::from(which)]);
                match judge(session.as_ref(), &claim) {
                    Verdict::StartOver => {
                        session = Some(Session::new(claim.file.clone()));
                        held.clear();
                    }
                    Verdict::Take => {}
                    Verdict::Superfluous | Verdict::Foreign => continue,
                }
                held.insert((which, index));
                let Some(current) = session.as_mut() else { continue };
                if current.receive(index, 1, NO_LIMIT) == Progress::Whole {
                    prop_assert_eq!(held.len(), 4);
                    prop_assert!(held.iter().all(|(from, _)| *from == which));
                    current.finish(current.file().clone());
                }
            }
        }
    }
}
