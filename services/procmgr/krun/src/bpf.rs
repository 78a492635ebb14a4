//! The system calls that the VMM may not make: a guest that takes it over finds neither another program to run nor a way to
//! other processes, mounts, namespaces or the network. What libkrun and its file server need is many calls and changes with
//! the library, so this is a list of what is refused; the user, the namespaces and the mounts bound the rest.
#![allow(unsafe_code)]

use std::io;

use nix::{errno::Errno, libc};

/// Refused with EPERM.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_personality,
    libc::SYS_lookup_dcookie,
    libc::SYS_fanotify_init,
    libc::SYS_name_to_handle_at,
    libc::SYS_vhangup,
    libc::SYS_setpriority,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_shmget,
    libc::SYS_mq_open,
    libc::SYS_capset,
];

/// x86-64, the only one for which a guest kernel is fetched.
const ARCHITECTURE: u32 = 0xC000_003E;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// Offsets in `seccomp_data`; the low half of an argument comes first.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

fn program() -> Vec<libc::sock_filter> {
    let step = |code, k, yes, no| libc::sock_filter { code, jt: yes, jf: no, k };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let mut steps = vec![
        step(LOAD, ARCH, 0, 0),
        step(EQUAL, ARCHITECTURE, 1, 0),
        step(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
        step(LOAD, NUMBER, 0, 0),
        step(AT_LEAST, 0x4000_0000, 0, 1), // the x32 numbers of the same calls
        step(RETURN, refuse, 0, 0),
    ];
    for call in REFUSED {
        steps.extend([step(EQUAL, number(*call), 0, 1), step(RETURN, refuse, 0, 0)]);
    }
    // Sockets: between processes of this machine only; and processes: threads only.
    let family = libc::AF_UNIX.cast_unsigned();
    steps.extend([
        step(EQUAL, number(libc::SYS_socket), 0, 3),
        step(LOAD, FIRST_ARGUMENT, 0, 0),
        step(EQUAL, family, 1, 0),
        step(RETURN, refuse, 0, 0),
        step(LOAD, NUMBER, 0, 0),
        // clone3 hides its flags behind a pointer: without it the C library falls back to clone.
        step(EQUAL, number(libc::SYS_clone3), 0, 1),
        step(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(), 0, 0),
        step(EQUAL, number(libc::SYS_clone), 0, 4),
        step(LOAD, FIRST_ARGUMENT, 0, 0),
        step((libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16, libc::CLONE_THREAD.cast_unsigned(), 1, 0),
        step(RETURN, refuse, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ]);
    steps
}

/// From here on they are refused, in this thread and every one that it starts.
pub(crate) fn refuse() -> io::Result<()> {
    let mut steps = program();
    let filter = libc::sock_fprog {
        len: steps.len().try_into().expect("a few hundred steps fit"),
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, which lives until the call is over.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    Errno::result(set)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nix::{
        sys::{
            prctl,
            wait::{WaitStatus, waitpid},
        },
        unistd::{ForkResult, fork},
    };

    use super::*;

    /// The error of a system call, made as it is; 0 where it was done.
    fn errno(call: libc::c_long, first: libc::c_long) -> i32 {
        // SAFETY: in a child of the test alone; with these arguments even a call that were not refused would do nothing.
        if unsafe { libc::syscall(call, first, 0, 0, 0, 0, 0) } < 0 { Errno::last_raw() } else { 0 }
    }

    /// What goes wrong in a process that is refused; none of its steps takes memory or a lock.
    fn judge() -> Option<libc::c_long> {
        let others = [
            (libc::SYS_socket, libc::AF_INET.into(), libc::EPERM),
            (libc::SYS_socket, libc::AF_VSOCK.into(), libc::EPERM),
            (libc::SYS_clone, libc::SIGCHLD.into(), libc::EPERM),
            (libc::SYS_clone3, 0, libc::ENOSYS),
            (0x4000_0000 + libc::SYS_getpid, 0, libc::EPERM),
            (libc::SYS_getppid, 0, 0),
        ];
        let refused = REFUSED.iter().map(|call| (*call, 0, libc::EPERM));
        let mut wrong =
            refused.chain(others).filter(|(call, first, expected)| errno(*call, *first) != *expected);
        wrong.next().map(|(call, ..)| call)
    }

    #[test]
    fn what_is_on_the_list_is_refused_and_so_are_processes_and_sockets_to_elsewhere() {
        // SAFETY: the child makes system calls and ends; what `refuse` allocates the C library lets a child allocate.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let ready = prctl::set_no_new_privs().is_ok() && refuse().is_ok();
                let code = if ready {
                    judge().map_or(0, |call| i32::try_from(call & 0x7f).unwrap_or(127) | 1)
                } else {
                    255
                };
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(
                    waitpid(child, None).unwrap(),
                    WaitStatus::Exited(child, 0),
                    "the call's number, about"
                );
            }
        }
    }

    #[test]
    fn no_jump_leaves_the_program_and_its_last_step_returns() {
        let steps = program();
        let jump = |step: &libc::sock_filter| [EQUAL, AT_LEAST].contains(&step.code) || step.jt != 0;
        for (at, step) in steps.iter().enumerate().filter(|(_, step)| jump(step)) {
            assert!(at + 1 + usize::from(step.jt.max(step.jf)) < steps.len());
        }
        assert_eq!(steps.last().unwrap().code, RETURN);
        assert!(steps.len() < 4096);
    }
}
