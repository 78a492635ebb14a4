//! Whether the processor runs guests itself. Some machines offer a `/dev/kvm` that interprets what a guest's kernel does, some
//! thousand times slower: a loop tells within milliseconds, where a guest's boot would take its whole deadline.
#![allow(unsafe_code)]

use std::sync::mpsc::channel;
use std::{io, os::fd::RawFd, ptr, thread, time::Duration, time::Instant};

use kvm_bindings::{kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use nix::libc;

/// `mov ecx, 100000` · `dec ecx` · `jnz` back to it · `hlt`, for 32 bits.
const LOOP: [u8; 9] = [0xb9, 0xa0, 0x86, 0x01, 0x00, 0x49, 0x75, 0xfd, 0xf4];
/// A guest's boot takes so many times as long, and more: 2 s for it leave 31 ms for the loop, for which a processor takes 0.1,
/// one that is emulated with its virtualisation 0.4, an interpreter 105.
const LOOPS: u32 = 64;
/// A thread that was not given the processor looks slow too.
const TRIES: u32 = 4;
const PAGE: usize = 4096;

/// Says why a guest would be too slow to boot within this time, if so. May leave a thread behind.
pub(crate) fn judge(boot: Duration) -> Result<(), String> {
    let failed = |error: kvm_ioctls::Error| io::Error::from_raw_os_error(error.errno()).to_string();
    let kvm = Kvm::new().map_err(|error| format!("could not open /dev/kvm: {}", failed(error)))?;
    for _ in 0..TRIES {
        if quick(&kvm, boot / LOOPS)
            .map_err(|error| format!("could not run a trial of the processor: {}", failed(error)))?
        {
            return Ok(());
        }
    }
    Err("this machine interprets its guests, which is too slow to run apps".into())
}

/// Whether the loop ends in time. If not, its thread is left behind: it ends with this process.
fn quick(kvm: &Kvm, limit: Duration) -> Result<bool, kvm_ioctls::Error> {
    let machine = kvm.create_vm()?;
    let mut processor = prepare(&machine)?;
    let (done, ended) = channel();
    thread::spawn(move || {
        let began = Instant::now();
        let halted = matches!(processor.run(), Ok(VcpuExit::Hlt));
        let _ = done.send(halted.then(|| began.elapsed()));
        drop((processor, machine));
    });
    // What ends before anybody waits for it has taken some time too: a limit of none is never kept.
    Ok(ended.recv_timeout(limit).ok().flatten().is_some_and(|took| took < limit))
}

/// A processor in front of the loop, in flat 32-bit mode.
fn prepare(machine: &VmFd) -> Result<VcpuFd, kvm_ioctls::Error> {
    // SAFETY: a new page that nothing else refers to; it is never given back, as the guest may still run.
    let page = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        const NO_FILE: RawFd = -1;
        libc::mmap(ptr::null_mut(), PAGE, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, NO_FILE, 0)
    };
    if page == libc::MAP_FAILED {
        return Err(kvm_ioctls::Error::last());
    }
    // SAFETY: the page is mapped, writable and longer than the loop.
    unsafe { ptr::copy_nonoverlapping(LOOP.as_ptr(), page.cast(), LOOP.len()) };
    let region = kvm_userspace_memory_region {
        memory_size: PAGE as u64,
        userspace_addr: page.addr() as u64,
        ..Default::default()
    };
    // SAFETY: the region is the page, which stays mapped.
    unsafe { machine.set_user_memory_region(region)? };
    let processor = machine.create_vcpu(0)?;
    let mut special = processor.get_sregs()?;
    let flat = kvm_segment { limit: u32::MAX, present: 1, s: 1, g: 1, db: 1, ..Default::default() };
    special.cs = kvm_segment { type_: 11, selector: 8, ..flat };
    (special.ds, special.ss) =
        (kvm_segment { type_: 3, selector: 16, ..flat }, kvm_segment { type_: 3, selector: 16, ..flat });
    special.cr0 |= 1;
    processor.set_sregs(&special)?;
    let mut general = processor.get_regs()?;
    (general.rip, general.rflags) = (0, 2);
    processor.set_regs(&general)?;
    Ok(processor)
}
