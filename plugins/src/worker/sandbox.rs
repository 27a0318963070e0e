//! What a worker gives up before it runs a guest: files, network, other processes, most of the kernel.
//!
//! `child` calls [`confine`] while it is one thread and [`filter_calls`] when all its threads run. Each measure is
//! tried; what the kernel lacks or forbids is told to the server, which warns once. They overlap on purpose, but
//! without the filter of system calls, and the promise of no new privileges that it rests on, no guest runs:
//!
//! | measure | what it stops |
//! |---|---|
//! | limits | core files with guest memory, descriptors, memory, threads (with a user namespace) |
//! | not dumpable, no new privileges | ptrace by others of the same user, set-uid programs |
//! | namespaces | network (an empty one), System V IPC, mounts |
//! | no capabilities | everything that is root's, if the server runs as root |
//! | landlock | every path; TCP; signals and abstract sockets of others |
//! | seccomp | every system call that computing and talking over the open socket does not need |
//!
//! `RLIMIT_AS` is generous: wasmtime reserves gigabytes of addresses per memory so that guests need no bounds checks.
//! What bounds memory is `RLIMIT_DATA`, which counts what is writable.

use std::{collections::BTreeMap, io};

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use serde::{Deserialize, Serialize};

use super::system_calls;

/// What a worker may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxLimits {
    pub address_space_bytes: u64,
    /// Writable memory, guests' and our own.
    pub data_bytes: u64,
    pub open_files: u64,
    pub threads: u64,
}

impl Default for SandboxLimits {
    fn default() -> Self {
        Self { address_space_bytes: 1 << 40, data_bytes: 4 << 30, open_files: 64, threads: 128 }
    }
}

/// What did not take hold, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What other measures make up for.
    pub missing: Vec<String>,
    /// What nothing makes up for: no guest runs here.
    pub required: Vec<String>,
}

impl Report {
    /// Why no guest may run.
    pub fn refusal(&self) -> Option<String> {
        (!self.required.is_empty()).then(|| {
            let missing = self.required.join("; ");
            format!("it cannot be locked in ({missing}); plugins need a kernel and a container that allow it")
        })
    }

    fn require(&mut self, measure: &str, result: Result<(), String>) {
        if let Err(why) = result {
            self.required.push(format!("{measure}: {why}"));
        }
    }

    fn note(&mut self, measure: &str, result: Result<(), String>) -> bool {
        let held = result.is_ok();
        if let Err(why) = result {
            self.missing.push(format!("{measure}: {why}"));
        }
        held
    }
}

/// Everything that must come before the first further thread.
pub(super) fn confine(limits: &SandboxLimits) -> Report {
    let mut report = Report::default();
    report.note("no core files", limit(libc::RLIMIT_CORE, 0));
    report.note("few open files", limit(libc::RLIMIT_NOFILE, limits.open_files));
    report.note("bounded addresses", limit(libc::RLIMIT_AS, limits.address_space_bytes));
    report.note("bounded memory", limit(libc::RLIMIT_DATA, limits.data_bytes));
    report.require("no new privileges", prctl(libc::PR_SET_NO_NEW_PRIVS, 1));
    if report.note("namespaces of its own", unshare()) {
        // Counted per user and namespace: without one of its own, the server's threads would count too.
        report.note("few threads", limit(libc::RLIMIT_NPROC, limits.threads));
    }
    report.note("no capabilities", drop_capabilities());
    // Changing credentials may undo both.
    report.note("not dumpable", prctl(libc::PR_SET_DUMPABLE, 0));
    report.note("ends with the server", prctl(libc::PR_SET_PDEATHSIG, unsigned(libc::SIGKILL)));
    report.note("landlock", landlock());
    report
}

/// The last step: from here on no thread can make a system call that is not on the list.
pub(super) fn filter_calls(report: &mut Report) {
    report.require("seccomp", filter_system_calls());
}

fn limit(resource: libc::__rlimit_resource_t, most: u64) -> Result<(), String> {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live rlimit that the call fills in.
    check(unsafe { libc::getrlimit(resource, &raw mut now) })?;
    // The hard limit is lowered too, so that it cannot be raised again; it is never raised.
    let most = most.min(now.rlim_max);
    let wanted = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the pointer is to a live rlimit that the call reads.
    check(unsafe { libc::setrlimit(resource, &raw const wanted) })
}

fn prctl(option: libc::c_int, value: libc::c_ulong) -> Result<(), String> {
    let none: libc::c_ulong = 0;
    // SAFETY: these options take numbers only.
    check(unsafe { libc::prctl(option, value, none, none, none) })
}

fn unshare() -> Result<(), String> {
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWNS;
    // SAFETY: takes flags only; this process has one thread.
    check(unsafe { libc::unshare(flags) })
}

/// `struct __user_cap_header_struct` and two of `struct __user_cap_data_struct` (capset(2)).
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn drop_capabilities() -> Result<(), String> {
    // _LINUX_CAPABILITY_VERSION_3
    let header = CapabilityHeader { version: 0x2008_0522, pid: 0 };
    let none = [CapabilityData { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 reads one header and two data structures, both live here.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(last_error()) }
}

/// Handles every right and grants none.
fn landlock() -> Result<(), String> {
    let apply = || {
        Ruleset::default()
            .handle_access(AccessFs::from_all(ABI::V6))?
            .handle_access(AccessNet::from_all(ABI::V6))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .restrict_self()
    };
    match apply().map(|status| status.ruleset) {
        Ok(RulesetStatus::FullyEnforced) => Ok(()),
        Ok(RulesetStatus::PartiallyEnforced) => Err("this kernel knows only a part of it".to_owned()),
        Ok(RulesetStatus::NotEnforced) => Err("this kernel does not have it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Needs no new privileges to be promised already. Also what the compiler of components lives with.
pub(crate) fn filter_system_calls() -> Result<(), String> {
    let programs = [deadly_filter(), clone3_filter(), allowing_filter()];
    // The strictest answer of all filters holds. The list of what is allowed comes last: it has no seccomp(2).
    for program in programs {
        let program = program.map_err(|error| error.to_string())?;
        seccompiler::apply_filter_all_threads(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What no accident does: the process ends.
fn deadly_filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = system_calls::DEADLY.iter().map(|call| (*call, Vec::new())).collect();
    filter(rules, SeccompAction::Allow, SeccompAction::KillProcess)
}

/// Its flags are in memory, where a filter cannot look: libc falls back to clone(2), whose flags it can.
fn clone3_filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    filter(rules, SeccompAction::Allow, SeccompAction::Errno(errno(libc::ENOSYS)))
}

/// All other calls fail with EPERM.
fn allowing_filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        system_calls::ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let thread = u64::from(unsigned_32(libc::CLONE_THREAD));
    // Threads, no processes.
    rules.insert(libc::SYS_clone, vec![argument(0, SeccompCmpOp::MaskedEq(thread), thread)?]);
    // abort() signals its own thread; the server is of the same user and must not be signalled.
    rules.insert(libc::SYS_tgkill, vec![argument(0, SeccompCmpOp::Eq, std::process::id().into())?]);
    rules.insert(libc::SYS_prlimit64, vec![argument(0, SeccompCmpOp::Eq, 0)?]);
    rules.insert(libc::SYS_prctl, one_of(0, &[libc::PR_SET_NAME, libc::PR_GET_NAME])?);
    // Not F_SETOWN and F_SETSIG: they would send signals to the server.
    let descriptors = [
        libc::F_DUPFD_CLOEXEC,
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_ADD_SEALS,
        libc::F_GET_SEALS,
    ];
    rules.insert(libc::SYS_fcntl, one_of(1, &descriptors)?);
    filter(rules, SeccompAction::Errno(errno(libc::EPERM)), SeccompAction::Allow)
}

fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    BpfProgram::try_from(SeccompFilter::new(rules, otherwise, matched, architecture)?)
}

fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?])
}

fn one_of(index: u8, values: &[libc::c_int]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    values.iter().map(|value| argument(index, SeccompCmpOp::Eq, unsigned_32(*value).into())).collect()
}

const fn unsigned_32(value: libc::c_int) -> u32 {
    value.cast_unsigned()
}

fn unsigned(value: libc::c_int) -> libc::c_ulong {
    unsigned_32(value).into()
}

const fn errno(value: libc::c_int) -> u32 {
    unsigned_32(value)
}

fn check(result: libc::c_int) -> Result<(), String> {
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

fn last_error() -> String {
    io::Error::last_os_error().to_string()
}
