//! The kept corpus breaks no promise, of no target.

#![allow(clippy::unwrap_used, clippy::panic)]

#[test]
fn no_kept_input_breaks_a_promise() {
    for (name, target) in nexushub_fuzz::all() {
        let seeds =
            nexushub_fuzz::seeds(name).unwrap_or_else(|error| panic!("{name} has no corpus: {error}"));
        assert!(!seeds.is_empty(), "{name} has no corpus");
        for seed in seeds {
            println!("{name}: {}", seed.escape_ascii());
            target(&seed);
        }
    }
}
