//! The kept corpus, as files in a folder for the search, and back.
//!
//! ```text
//! nexushub-seeds targets
//! nexushub-seeds unpack TARGET FOLDER
//! nexushub-seeds pack TARGET FOLDER      what it holds and is short enough to be read by people is kept, too
//! ```

use std::{env, fs, io, path::Path};

/// Longer inputs are not kept.
const LONGEST: usize = 512;
/// Of one target so many are kept at most, the shortest.
const MOST: usize = 400;

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["targets"] => {
            nexushub_fuzz::all().iter().for_each(|(name, _)| println!("{name}"));
            Ok(())
        }
        ["unpack", target, folder] => unpack(target, Path::new(folder)),
        ["pack", target, folder] => pack(target, Path::new(folder)),
        _ => {
            Err(io::Error::other("usage: nexushub-seeds targets | unpack TARGET FOLDER | pack TARGET FOLDER"))
        }
    }
}

fn unpack(target: &str, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (number, input) in nexushub_fuzz::seeds(target)?.into_iter().enumerate() {
        fs::write(folder.join(format!("kept-{number}")), input)?;
    }
    Ok(())
}

fn pack(target: &str, folder: &Path) -> io::Result<()> {
    let mut inputs = nexushub_fuzz::seeds(target).unwrap_or_default();
    for entry in fs::read_dir(folder)? {
        inputs.push(fs::read(entry?.path())?);
    }
    inputs.retain(|input| input.len() <= LONGEST);
    inputs.sort_by_key(Vec::len);
    inputs.truncate(MOST);
    nexushub_fuzz::keep(target, inputs)
}
