//! Lines that look like nothing and can be made again by whoever knows their number: what the probe says in a storm, and
//! what a test holds against that.

/// Every so manieth line is long: longer than one frame of a log.
const LONG_EVERY: u64 = 1000;

/// A line of any bytes but its end, of any length, the same for the same seed and number.
#[must_use]
pub fn line(seed: u64, number: u64) -> Vec<u8> {
    let mut state = seed.rotate_left(32) ^ number;
    let most = if number % LONG_EVERY == LONG_EVERY - 1 { 200_000 } else { 200 };
    let length = usize::try_from(next(&mut state) % most).unwrap_or(0);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(next(&mut state).to_le_bytes());
    }
    bytes.truncate(length);
    bytes.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
    bytes
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
