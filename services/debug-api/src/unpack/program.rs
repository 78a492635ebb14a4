//! Whether `bin/app` is something that this machine can start: a program for its processor, whose loader is there, or a script with an
//! interpreter that is. Pure but for how its bytes are read; what it says is for whoever built the package.

use std::{
    io,
    path::{Component, Path},
};

/// Longest interpreter line that the kernel reads.
const LINE_MAX: usize = 255;
/// Longest name of a loader.
const LOADER_MAX: u64 = 4096;
const PROGRAM_HEADERS_MAX: u64 = 1024;
/// What a program header says of the loader's name.
const PT_INTERP: u32 = 3;
/// Kinds of ELF files that are programs: at a fixed place, and anywhere.
const PROGRAMS: [u16; 2] = [2, 3];
const SIXTY_FOUR_BITS: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
/// What boxes have of the host's, read-only, and the package itself (`root.rs` of procmgr's sandbox).
const SEEN: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/app"];

/// The machine that the app is to run on.
pub(crate) struct Machine<'a> {
    /// As Rust calls its processor.
    pub(crate) arch: &'a str,
    /// Whether apps run without a box, and see all of the machine.
    pub(crate) open: bool,
    /// Whether a file is there, as the app would see it.
    pub(crate) has: &'a dyn Fn(&Path) -> bool,
}

/// Reads what is at a place into a buffer, as much as there is of it.
pub(crate) type ReadAt<'a> = &'a dyn Fn(u64, &mut [u8]) -> io::Result<usize>;

/// Why it can't be started, in words that follow `bin/app`.
pub(crate) fn judge(read: ReadAt<'_>, machine: &Machine<'_>) -> io::Result<Result<(), String>> {
    let mut head = [0; LINE_MAX];
    let length = read(0, &mut head)?;
    Ok(match &head[..length] {
        [] => Err("is empty; was it built?".to_owned()),
        [b'#', b'!', line @ ..] => script(line, machine),
        [0x7f, b'E', b'L', b'F', ..] => return elf(&head[..length], read, machine),
        [b'M', b'Z', ..] => Err(foreign("Windows", machine)),
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => Err(foreign("macOS", machine)),
        _ => Err("is neither a program (ELF) nor a script with an interpreter line; begin a script with \
                  `#!/bin/sh` or the like"
            .to_owned()),
    })
}

fn foreign(system: &str, machine: &Machine<'_>) -> String {
    format!("is a program for {system}; build it for Linux on {}", machine.arch)
}

fn script(line: &[u8], machine: &Machine<'_>) -> Result<(), String> {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.ends_with(b"\r") {
        return Err(
            "has an interpreter line that ends in a carriage return; save it with the line ends of Unix"
                .to_owned(),
        );
    }
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let interpreter = line.split(blank).find(|word| !word.is_empty()).unwrap_or_default();
    let interpreter = String::from_utf8_lossy(interpreter);
    if interpreter.is_empty() {
        return Err("names no interpreter behind `#!`; write `#!/bin/sh` or the like".to_owned());
    }
    if !interpreter.starts_with('/') {
        return Err(format!("names the interpreter {}, which is no absolute path", shown(&interpreter)));
    }
    needs("interpreter", &interpreter, "name one that is there, or put it into the package", machine)
}

/// The loader or interpreter must be there, and where boxes see it.
fn needs(what: &str, path: &str, else_do: &str, machine: &Machine<'_>) -> Result<(), String> {
    let shown = shown(path);
    if Path::new(path).components().any(|part| part == Component::ParentDir) {
        return Err(format!("needs the {what} {shown}, whose path holds `..`; {else_do}"));
    }
    let seen = SEEN.iter().any(|folder| Path::new(path).starts_with(folder));
    // Where boxes see it or not: of other places nobody is told what there is.
    if !seen && !machine.open {
        return Err(format!("needs the {what} {shown}, which boxes do not have; {else_do}"));
    }
    if !(machine.has)(Path::new(path)) {
        return Err(format!("needs the {what} {shown}, which this machine does not have; {else_do}"));
    }
    Ok(())
}

fn shown(path: &str) -> String {
    path.chars().take(120).flat_map(char::escape_debug).collect()
}

fn elf(head: &[u8], read: ReadAt<'_>, machine: &Machine<'_>) -> io::Result<Result<(), String>> {
    let Some(header) = head.first_chunk::<64>() else {
        return Ok(Err("is cut off; build and pack it again".to_owned()));
    };
    let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let (class, order, kind, processor) = (header[4], header[5], short(16), short(18));
    let arch = if order == LITTLE_ENDIAN { name(processor) } else { name(processor.swap_bytes()) };
    if class != SIXTY_FOUR_BITS || order != LITTLE_ENDIAN || arch != machine.arch {
        let bits = if class == SIXTY_FOUR_BITS { "" } else { " (32 bits)" };
        let ours = machine.arch;
        return Ok(Err(format!("is for {arch}{bits}, this machine is {ours}; build it for {ours}")));
    }
    if !PROGRAMS.contains(&kind) {
        return Ok(Err("is an object file, no program; link it".to_owned()));
    }
    let offset = u64::from_le_bytes(header[32..40].try_into().expect("these are eight bytes"));
    let (size, count) = (u64::from(short(54)), u64::from(short(56)));
    loader(offset, (size, count), read).map(|found| match found {
        Loader::None => Ok(()),
        Loader::Cut => Err("is cut off; build and pack it again".to_owned()),
        Loader::At(path) => {
            needs("loader", &path, "link it statically (musl), or against what Debian 12 has", machine)
        }
    })
}

enum Loader {
    /// The program is linked statically.
    None,
    Cut,
    At(String),
}

/// Which loader the program asks for.
fn loader(offset: u64, (size, count): (u64, u64), read: ReadAt<'_>) -> io::Result<Loader> {
    if size != 56 || count > PROGRAM_HEADERS_MAX {
        return Ok(Loader::Cut);
    }
    for number in 0..count {
        let mut header = [0; 56];
        let Some(at) = offset.checked_add(number * size) else { return Ok(Loader::Cut) };
        if read(at, &mut header)? < header.len() {
            return Ok(Loader::Cut);
        }
        let long =
            |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("these are eight bytes"));
        if u32::from_le_bytes(header[..4].try_into().expect("these are four bytes")) != PT_INTERP {
            continue;
        }
        let (at, length) = (long(8), long(32));
        let mut name = vec![0; usize::try_from(length.min(LOADER_MAX)).unwrap_or(0)];
        if length > LOADER_MAX || read(at, &mut name)? < name.len() {
            return Ok(Loader::Cut);
        }
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        return Ok(Loader::At(String::from_utf8_lossy(name).into_owned()));
    }
    Ok(Loader::None)
}

/// What a processor is called.
fn name(machine: u16) -> String {
    match machine {
        3 => "x86",
        8 => "mips",
        20 => "powerpc",
        21 => "powerpc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        other => return format!("a processor of number {other}"),
    }
    .to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A program of these: its processor, and the loader that it asks for.
    pub(crate) fn elf(processor: u16, loader: Option<&str>) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[16..18].copy_from_slice(&3_u16.to_le_bytes());
        file[18..20].copy_from_slice(&processor.to_le_bytes());
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        let Some(loader) = loader else { return file };
        file[56..58].copy_from_slice(&1_u16.to_le_bytes());
        let mut header = [0; 56];
        header[..4].copy_from_slice(&PT_INTERP.to_le_bytes());
        header[8..16].copy_from_slice(&120_u64.to_le_bytes());
        header[32..40].copy_from_slice(&(loader.len() as u64 + 1).to_le_bytes());
        file.extend(header);
        file.extend(loader.as_bytes());
        file.push(0);
        file
    }

    fn judged(bytes: &[u8], open: bool) -> Result<(), String> {
        let there = ["/lib64/ld-linux-x86-64.so.2", "/bin/sh", "/usr/bin/env", "/opt/python", "/app/bin/sh"];
        let has = |path: &Path| there.iter().any(|there| path == Path::new(there));
        let read = |at: u64, buffer: &mut [u8]| {
            let rest = bytes.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        };
        judge(&read, &Machine { arch: "x86_64", open, has: &has }).unwrap()
    }

    fn refusal(bytes: &[u8]) -> String {
        judged(bytes, false).unwrap_err()
    }

    #[test]
    fn programs_and_scripts_that_can_be_started_are_taken() {
        assert_eq!(judged(&elf(62, None), false), Ok(()), "linked statically");
        assert_eq!(judged(&elf(62, Some("/lib64/ld-linux-x86-64.so.2")), false), Ok(()));
        for script in ["#!/bin/sh\nexit", "#! /usr/bin/env python3\n", "#!/bin/sh -e", "#!/app/bin/sh\n"] {
            assert_eq!(judged(script.as_bytes(), false), Ok(()), "{script:?}");
        }
        assert_eq!(judged(b"#!/opt/python\n", true), Ok(()), "without a box");
    }

    #[test]
    fn a_program_for_another_machine_says_which() {
        assert_eq!(refusal(&elf(183, None)), "is for aarch64, this machine is x86_64; build it for x86_64");
        let mut small = elf(40, None);
        small[4] = 1;
        assert!(refusal(&small).starts_with("is for arm (32 bits), this machine"));
        let mut swapped = elf(22_u16.swap_bytes(), None);
        swapped[5] = 2;
        assert!(refusal(&swapped).starts_with("is for s390x, "));
        assert!(refusal(&elf(9999, None)).contains("number 9999"));
        assert!(refusal(b"MZ\x90").starts_with("is a program for Windows; build it for Linux on x86_64"));
        assert!(refusal(b"\xcf\xfa\xed\xfe....").starts_with("is a program for macOS"));
    }

    #[test]
    fn what_it_needs_and_is_not_there_is_named() {
        let said = refusal(&elf(62, Some("/lib/ld-musl-x86_64.so.1")));
        assert!(said.starts_with("needs the loader /lib/ld-musl-x86_64.so.1, which this machine does not"));
        let said = refusal(b"#!/usr/bin/python9\n");
        assert!(said.starts_with("needs the interpreter /usr/bin/python9, which this machine does not"));
        let said = refusal(b"#!/opt/python\n");
        assert!(said.starts_with("needs the interpreter /opt/python, which boxes do not have"), "{said}");
    }

    #[test]
    fn scripts_that_the_kernel_would_not_take_are_told_why() {
        for (script, word) in [
            ("echo hello\n", "neither a program (ELF) nor a script"),
            ("", "is empty"),
            ("#!\n/bin/sh", "names no interpreter"),
            ("#!  \n", "names no interpreter"),
            ("#!sh\n", "no absolute path"),
            ("#!/bin/sh\r\nexit\r\n", "carriage return"),
        ] {
            assert!(refusal(script.as_bytes()).contains(word), "{script:?}");
        }
    }

    #[test]
    fn a_program_that_is_cut_off_or_lies_about_itself_is_refused_without_harm() {
        let whole = elf(62, Some("/lib64/ld-linux-x86-64.so.2"));
        for length in 4..whole.len() {
            assert!(judged(&whole[..length], false).is_err(), "{length} bytes of it");
        }
        let mut object = elf(62, None);
        object[16] = 1;
        assert!(refusal(&object).contains("link it"));
        for (at, value) in [(32, 0xff), (39, 0xff), (54, 1), (57, 0xff), (72, 0xff), (79, 0xff), (103, 0xff)]
        {
            let mut lie = whole.clone();
            lie[at] = value;
            assert!(judged(&lie, false).is_err(), "byte {at}");
        }
    }
}
