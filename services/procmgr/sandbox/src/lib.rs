//! The box of one app: the first process of its namespaces, which builds the rest, starts the app and reports how it ended.
//!
//! ```text
//! shim ── pid + net namespace, fork, exec ──► nexushub-sandbox: pid 1, outside the app's user namespace
//!   ▲                                            │ mount, ipc, uts, cgroup namespaces
//!   │                                            │ as root: a disk of the data's own        (disk)
//!   │                                            │ pivot into a small read-only root        (root)
//!   │                                            │ fork ──► app: own user + mount namespace
//!   │                                            │ id map ─►  its ids, no capability        (user)
//!   │                                            │            limits, Landlock              (land)
//!   │                                            │            system calls it may make      (filter)
//!   │                                            │            exec /app/bin/app
//!   └── fd 3: "code=0", "signal=9" or why not ◄──┘ reaps, passes SIGTERM on, ends with the app
//! ```
//! Invariants: whatever can't be built stops the start with a reason, save Landlock, whose absence the probe tells; the
//! namespaces and mounts belong to a user namespace in which the app is nobody; nobody but pid 1 holds the report.
//!
//! It works alike as root (`--uid`: 65,536 ids of the box's own) and as an ordinary user (`--slot`: one of the ids that it may give
//! away; else the user's own).

pub mod data;
pub mod filter;
pub mod init;
pub mod land;
pub mod order;
pub mod probe;
pub mod report;
pub mod root;
pub mod subordinate;
pub mod user;
