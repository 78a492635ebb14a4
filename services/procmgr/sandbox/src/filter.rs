//! The system calls that an app may make: a list of names. What isn't on it fails with EPERM.
//!
//! Two filters, of which the kernel takes the stricter answer: the list, and one that has `clone3` and `io_uring` look as if
//! the kernel had none. A C library then falls back to `clone`, whose flags a filter can read.

use std::{collections::BTreeMap, env::consts::ARCH};

use nix::libc;
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{self, Eq, MaskedEq, Ne};
use seccompiler::{BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule};

use crate::report::Reason;

/// For each argument that matters, what it must be.
type Conditions = Vec<(u8, SeccompCmpOp, u64)>;

/// Names of the kernel's numbers: `SYS_` and the call.
macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

type Table = &'static [(&'static str, libc::c_long)];

/// What any program may ask for, whatever the arguments.
const ALLOWED: Table = calls! {
    SYS_read SYS_write SYS_close SYS_lseek SYS_mmap SYS_mprotect SYS_munmap SYS_brk SYS_rt_sigaction
    SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigpending SYS_rt_sigtimedwait SYS_rt_sigqueueinfo
    SYS_rt_tgsigqueueinfo SYS_rt_sigsuspend SYS_sigaltstack SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev
    SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2 SYS_sched_yield SYS_mremap SYS_msync SYS_mincore
    SYS_madvise SYS_mlock SYS_mlock2 SYS_munlock SYS_mlockall SYS_munlockall SYS_remap_file_pages SYS_dup
    SYS_dup3 SYS_nanosleep SYS_getitimer SYS_setitimer SYS_getpid SYS_gettid SYS_getppid SYS_exit
    SYS_exit_group SYS_wait4 SYS_waitid SYS_kill SYS_tkill SYS_tgkill SYS_uname SYS_fcntl SYS_flock
    SYS_fsync SYS_fdatasync SYS_sync SYS_syncfs SYS_sync_file_range SYS_truncate SYS_ftruncate SYS_fallocate
    SYS_fadvise64 SYS_readahead SYS_getcwd SYS_chdir SYS_fchdir SYS_openat SYS_openat2 SYS_close_range
    SYS_mkdirat SYS_unlinkat SYS_renameat SYS_renameat2 SYS_linkat SYS_symlinkat SYS_readlinkat SYS_fchmod
    SYS_fchmodat SYS_fchmodat2 SYS_fchown SYS_fchownat SYS_umask SYS_faccessat SYS_faccessat2 SYS_utimensat
    SYS_statx SYS_fstat SYS_newfstatat SYS_statfs SYS_fstatfs SYS_getdents64 SYS_gettimeofday
    SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_times SYS_sysinfo SYS_getrusage SYS_getrlimit
    SYS_setrlimit SYS_getuid SYS_getgid SYS_geteuid SYS_getegid SYS_setuid SYS_setgid SYS_setreuid
    SYS_setregid SYS_setresuid SYS_setresgid SYS_getresuid SYS_getresgid SYS_setfsuid SYS_setfsgid
    SYS_getgroups SYS_setgroups SYS_setpgid SYS_getpgid SYS_setsid SYS_getsid SYS_getpriority
    SYS_setpriority SYS_ioprio_get SYS_ioprio_set SYS_capget SYS_capset SYS_prctl SYS_execve SYS_execveat
    SYS_sched_setparam SYS_sched_getparam SYS_sched_setscheduler SYS_sched_getscheduler
    SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_rr_get_interval SYS_sched_setaffinity
    SYS_sched_getaffinity SYS_sched_setattr SYS_sched_getattr SYS_futex SYS_futex_waitv SYS_set_robust_list
    SYS_get_robust_list SYS_set_tid_address SYS_restart_syscall SYS_rseq SYS_membarrier SYS_getcpu
    SYS_getrandom SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_getsockname SYS_getpeername
    SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg SYS_shutdown SYS_setsockopt
    SYS_getsockopt SYS_pipe2 SYS_eventfd2 SYS_signalfd4 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait
    SYS_epoll_pwait2 SYS_ppoll SYS_pselect6 SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch
    SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime SYS_timer_create SYS_timer_settime
    SYS_timer_gettime SYS_timer_getoverrun SYS_timer_delete SYS_sendfile SYS_splice SYS_tee SYS_vmsplice
    SYS_copy_file_range SYS_memfd_create SYS_memfd_secret SYS_pkey_mprotect SYS_pkey_alloc SYS_pkey_free
    SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_listxattr
    SYS_llistxattr SYS_flistxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr SYS_shmget SYS_shmat
    SYS_shmdt SYS_shmctl SYS_semget SYS_semop SYS_semtimedop SYS_semctl SYS_msgget SYS_msgsnd SYS_msgrcv
    SYS_msgctl SYS_mq_open SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive SYS_mq_notify
    SYS_mq_getsetattr SYS_io_setup SYS_io_submit SYS_io_getevents SYS_io_cancel
    SYS_io_destroy SYS_pidfd_open SYS_pidfd_send_signal SYS_landlock_create_ruleset SYS_landlock_add_rule
    SYS_landlock_restrict_self SYS_seccomp
};

/// Calls of older programs, which newer architectures don't have.
#[cfg(target_arch = "x86_64")]
const OLDER: Table = calls! {
    SYS_open SYS_creat SYS_stat SYS_lstat SYS_poll SYS_select SYS_access SYS_pipe SYS_dup2 SYS_alarm
    SYS_pause SYS_fork SYS_vfork SYS_getdents SYS_mkdir SYS_rmdir SYS_rename SYS_link SYS_unlink SYS_symlink
    SYS_readlink SYS_chmod SYS_chown SYS_lchown SYS_utime SYS_utimes SYS_futimesat SYS_time SYS_getpgrp
    SYS_eventfd SYS_signalfd SYS_epoll_create SYS_epoll_wait SYS_inotify_init SYS_arch_prctl
    SYS_set_thread_area SYS_get_thread_area
};
#[cfg(not(target_arch = "x86_64"))]
const OLDER: Table = &[];

/// What the kernel seems not to have.
const ABSENT: Table = calls! { SYS_clone3 SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register };

const NEW_NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

/// What may be asked for with certain arguments only: one row of them is enough.
fn judged() -> Vec<(libc::c_long, Vec<Conditions>)> {
    let kinds = [0, libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK];
    let files = |at| kinds.map(|kind| vec![(at, MaskedEq(libc::S_IFMT.into()), kind.into())]).to_vec();
    let own_limits = vec![(0, Eq, 0)];
    let typing = [libc::TIOCSTI, libc::TIOCLINUX].map(|request| (1, Ne, request & 0xffff_ffff)).to_vec();
    vec![
        (libc::SYS_clone, vec![vec![(0, MaskedEq(bits(NEW_NAMESPACES)), 0)]]),
        (libc::SYS_socket, sockets()),
        (libc::SYS_socketpair, vec![vec![(0, Eq, bits(libc::AF_UNIX))]]),
        (libc::SYS_ioctl, vec![typing]),
        (libc::SYS_personality, vec![vec![(0, Eq, 0)], vec![(0, Eq, 0xffff_ffff)]]),
        (libc::SYS_prlimit64, vec![own_limits]),
        (libc::SYS_mknodat, files(2)),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_mknod, files(1)),
    ]
}

/// Local sockets, TCP and UDP; and netlink as far as a program needs it to list its addresses.
fn sockets() -> Vec<Conditions> {
    const KIND: SeccompCmpOp = MaskedEq(0xf); // the rest are flags
    let internet = [
        (libc::SOCK_STREAM, 0),
        (libc::SOCK_STREAM, libc::IPPROTO_TCP),
        (libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
        (libc::SOCK_DGRAM, 0),
        (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
    ];
    let of = |family| {
        internet.map(|(kind, protocol)| {
            vec![(0, Eq, bits(family)), (1, KIND, bits(kind)), (2, Eq, bits(protocol))]
        })
    };
    let mut rows = vec![
        vec![(0, Eq, bits(libc::AF_UNIX))],
        vec![(0, Eq, bits(libc::AF_NETLINK)), (2, Eq, bits(libc::NETLINK_ROUTE))],
    ];
    rows.extend([of(libc::AF_INET), of(libc::AF_INET6)].concat());
    rows
}

/// An argument of 32 bits.
fn bits(argument: i32) -> u64 {
    argument.cast_unsigned().into()
}

/// The two filters, in the order in which they are installed.
fn programs() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let any = |calls: Table| calls.iter().map(|(_, number)| (*number, Vec::new()));
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = any(ALLOWED).chain(any(OLDER)).collect();
    for (number, rows) in judged() {
        let condition = |(at, operator, value)| SeccompCondition::new(at, Dword, operator, value);
        let rule =
            |row: Conditions| SeccompRule::new(row.into_iter().map(condition).collect::<Result<_, _>>()?);
        rules.insert(number, rows.into_iter().map(rule).collect::<Result<_, _>>()?);
    }
    let refuse = |errno: i32| SeccompAction::Errno(errno.cast_unsigned());
    let list = SeccompFilter::new(rules, refuse(libc::EPERM), SeccompAction::Allow, ARCH.try_into()?)?;
    let absent = any(ABSENT).collect();
    let absent = SeccompFilter::new(absent, SeccompAction::Allow, refuse(libc::ENOSYS), ARCH.try_into()?)?;
    Ok([list.try_into()?, absent.try_into()?])
}

/// Confines this process, and all that it starts, for good.
///
/// # Errors
/// When the kernel refuses, or the filters are none for this machine.
pub fn install() -> Result<(), Reason> {
    let failed =
        |error: &dyn std::fmt::Display| Reason::new(format_args!("could not filter system calls: {error}"));
    for program in programs().map_err(|error| failed(&error))? {
        seccompiler::apply_filter(&program).map_err(|error| failed(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_filters_fit_the_kernels_bound() {
        for program in programs().unwrap() {
            assert!((2..=4096).contains(&program.len()), "{}", program.len());
        }
    }

    #[test]
    fn no_call_is_listed_twice_or_has_two_judgements() {
        let names: Vec<_> = ALLOWED.iter().chain(OLDER).chain(ABSENT).map(|(_, number)| *number).collect();
        let judged = judged();
        let mut all: Vec<_> = names.into_iter().chain(judged.iter().map(|(number, _)| *number)).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn what_reaches_beyond_the_box_is_not_listed() {
        let refused: Table = calls! {
            SYS_unshare SYS_setns SYS_mount SYS_umount2 SYS_fsopen SYS_fsmount SYS_fsconfig SYS_fspick SYS_move_mount
            SYS_open_tree SYS_mount_setattr SYS_bpf SYS_keyctl SYS_add_key SYS_request_key SYS_userfaultfd
            SYS_perf_event_open SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_kexec_load
            SYS_kexec_file_load SYS_init_module SYS_finit_module SYS_delete_module SYS_pivot_root SYS_chroot
            SYS_swapon SYS_swapoff SYS_reboot SYS_open_by_handle_at SYS_name_to_handle_at SYS_quotactl
            SYS_pidfd_getfd SYS_kcmp SYS_fanotify_init SYS_syslog SYS_acct SYS_settimeofday SYS_clock_settime
            SYS_sethostname SYS_io_uring_setup SYS_clone3
        };
        let judged = judged();
        for (name, number) in refused {
            assert!(!ALLOWED.iter().chain(OLDER).any(|(_, allowed)| allowed == number), "{name}");
            assert!(!judged.iter().any(|(known, _)| known == number), "{name}");
        }
    }
}
