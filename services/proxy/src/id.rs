//! Request ids: uuid-shaped, unique within and across processes, made without a system call.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use http::HeaderValue;
use uuid::{Builder, Uuid};

static SEED: OnceLock<(u64, u64)> = OnceLock::new();
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The next id.
pub(crate) fn next() -> HeaderValue {
    let (low, high) = *SEED.get_or_init(|| Uuid::new_v4().as_u64_pair());
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(low.wrapping_add(count)).to_be_bytes());
    bytes[8..].copy_from_slice(&mix(high ^ mix(count)).to_be_bytes());
    let mut text = [0; 36];
    Builder::from_random_bytes(bytes).into_uuid().hyphenated().encode_lower(&mut text);
    HeaderValue::from_bytes(&text).expect("a uuid is printable ASCII")
}

/// The finaliser of splitmix64: a bijection that spreads neighbouring numbers.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_are_uuids_and_differ() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| next()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            Uuid::parse_str(id.to_str().unwrap()).unwrap();
        }
    }
}
