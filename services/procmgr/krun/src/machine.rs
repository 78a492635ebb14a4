//! The machine itself: the one place that calls libkrun. Nothing of an app's is among its arguments, and its socket
//! interception, with which a guest reaches the host's loopback, is off.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{IntoRawFd as _, OwnedFd, RawFd};
use std::{io, ptr};

use nexushub_agent::{
    APP_PORT, BASE_TAG, CONFIG, CONTROL_PORT, DATA_TAG, INIT, INWARD_PORT, MOUNT_POINTS, RELEASE_TAG,
};
use nix::libc;

use crate::jail::{APP_SOCKET, CONTROL_SOCKET, INWARD_SOCKET, KERNEL};

/// The guest's in its network, in which nobody else is but the host; a locally administered one.
const ADDRESS: [u8; 6] = [0x02, 0x6e, 0x68, 0, 0, 2];

/// What a machine is made of.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) memory_mib: u32,
    pub(crate) vcpus: u8,
    pub(crate) agent: &'static [u8],
    pub(crate) config: Vec<u8>,
    pub(crate) shares: bool,
    pub(crate) base: bool,
    /// The app's standard output and error.
    pub(crate) outputs: [RawFd; 2],
    /// Where the frames of its network go, if it has one.
    pub(crate) network: Option<OwnedFd>,
}

/// Becomes the machine. Returns only when it could not start; afterwards libkrun ends this process by itself.
pub(crate) fn run(machine: Machine) -> io::Error {
    match build(machine) {
        Ok(context) => call("start the virtual machine", krun::krun_start_enter(context))
            .err()
            .unwrap_or_else(|| io::Error::other("the virtual machine returned")),
        Err(error) => error,
    }
}

fn build(machine: Machine) -> io::Result<u32> {
    kernel()?;
    let context = call("make a machine", krun::krun_create_ctx())?;
    call("size the machine", krun::krun_set_vm_config(context, machine.vcpus, machine.memory_mib))?;
    // SAFETY: strings end with NUL and live during their calls; libkrun copies them.
    unsafe {
        call("add a root", krun::krun_add_virtiofs3(context, c"/dev/root".as_ptr(), ptr::null(), 0, true))?;
        for name in MOUNT_POINTS {
            let name = text(name);
            let added = krun::krun_fs_add_overlay_dir(context, c"/dev/root".as_ptr(), name.as_ptr(), 0o755);
            call("add a mount point", added)?;
        }
        overlay(context, INIT, machine.agent, 0o755)?;
        overlay(context, CONFIG, machine.config.leak(), 0o400)?;
        for (wanted, tag, path, read_only) in [
            (machine.shares, RELEASE_TAG, c"/app", true),
            (machine.shares, DATA_TAG, c"/db", false),
            (machine.base, BASE_TAG, c"/usr", true),
        ] {
            let tag = text(tag);
            if wanted {
                let added = krun::krun_add_virtiofs3(context, tag.as_ptr(), path.as_ptr(), 0, read_only);
                call("share a folder", added)?;
            }
        }
        call("turn off the default vsock", krun::krun_disable_implicit_vsock(context))?;
        call("add a vsock", krun::krun_add_vsock(context, 0))?;
        for (port, path, listen) in [
            (APP_PORT, APP_SOCKET, true),
            (CONTROL_PORT, CONTROL_SOCKET, false),
            (INWARD_PORT.into(), INWARD_SOCKET, false),
        ] {
            let path = text(path);
            let added = krun::krun_add_vsock_port2(context, port, path.as_ptr(), listen);
            call("map a vsock port", added)?;
        }
        if let Some(frames) = machine.network {
            // libkrun takes the descriptor over, when the guest finds the device.
            let (path, fd) = (ptr::null(), frames.into_raw_fd());
            let added = krun::krun_add_net_unixgram(context, path, fd, ADDRESS.as_ptr(), 0, 0);
            call("add a network", added)?;
        }
        call("turn off the default console", krun::krun_disable_implicit_console(context))?;
        let [stdout, stderr] = machine.outputs;
        call("add a console", krun::krun_add_virtio_console_default(context, -1, stdout, stderr))?;
    }
    Ok(context)
}

/// Loads the guest's kernel, so that libkrun, which knows it by name, finds it loaded.
fn kernel() -> io::Result<()> {
    let path = text(KERNEL);
    let refused = |why| {
        io::Error::other(format!("could not load the guest kernel: {why}; fetch it anew with dist/libkrunfw"))
    };
    // SAFETY: texts end with NUL; the library runs nothing when it is loaded. Errors are texts of the loader's own.
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        if library.is_null() {
            let error = libc::dlerror();
            let error = if error.is_null() { c"unknown" } else { CStr::from_ptr(error) };
            return Err(refused(error.to_string_lossy()));
        }
        if libc::dlsym(library, c"krunfw_get_kernel".as_ptr()).is_null() {
            return Err(refused("the library holds none".into()));
        }
    }
    Ok(())
}

/// A file of the root that can be looked up once: the kernel takes the agent, the agent the configuration, the app nothing.
///
/// # Safety
/// None of its own: the bytes are never freed, as libkrun demands.
unsafe fn overlay(context: u32, name: &str, bytes: &'static [u8], mode: u32) -> io::Result<()> {
    let name = text(name);
    let root = c"/dev/root";
    // SAFETY: as in `build`, and the bytes live for ever.
    let added = unsafe {
        krun::krun_fs_add_overlay_file(
            context,
            root.as_ptr(),
            name.as_ptr(),
            bytes.as_ptr(),
            bytes.len(),
            mode,
            true,
        )
    };
    call("add a file", added).map(|_| ())
}

fn text(text: &str) -> CString {
    CString::new(text).expect("texts of this program hold no NUL")
}

/// libkrun's results: negative is an error of the operating system's.
fn call(what: &str, result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| {
        let error = io::Error::from_raw_os_error(result.saturating_neg());
        io::Error::other(format!("could not {what}: {error}"))
    })
}
