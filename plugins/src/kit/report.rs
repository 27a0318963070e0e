//! What the kit found, one check after the other. `sepal plugin test` prints it, as a table or as JSON.

use std::{fmt, str::FromStr};

use sepal_database::connector::{PluginKind, Tier};
use serde::Serialize;

use crate::{
    call::ComponentHash,
    manifest::{Manifest, SinkSection},
    package::hex,
};

/// What a plugin claims, and is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Level {
    /// It loads, stays within its limits, leaks nothing and asks nowhere else.
    L0,
    /// No row is lost.
    L1,
    /// What comes twice can be told from what comes once.
    L2,
    /// The destination keeps the position, so nothing comes twice.
    L3,
}

impl Level {
    /// What the manifest claims.
    pub fn of(manifest: &Manifest) -> Self {
        match manifest.sink.as_ref().map(|SinkSection { delivery, .. }| delivery) {
            None | Some(Tier::AtLeastOnce) => Self::L1,
            Some(Tier::Idempotent) => Self::L2,
            Some(Tier::Transactional) => Self::L3,
        }
    }

    /// `L2 idempotent`
    pub const fn describe(self) -> &'static str {
        match self {
            Self::L0 => "L0 loads",
            Self::L1 => "L1 at-least-once",
            Self::L2 => "L2 idempotent",
            Self::L3 => "L3 transactional",
        }
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "L0" | "l0" | "0" | "loads" => Ok(Self::L0),
            "L1" | "l1" | "1" | "at-least-once" => Ok(Self::L1),
            "L2" | "l2" | "2" | "idempotent" => Ok(Self::L2),
            "L3" | "l3" | "3" | "transactional" => Ok(Self::L3),
            _ => Err(format!(
                "{text:?} is not a level; write L0 (loads), L1 (at-least-once), L2 (idempotent) or L3 (transactional)"
            )),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

/// The groups of checks. [`Self::Cases`] are the author's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    Cases = 0,
    Loads = 1,
    Batches = 2,
    Classes = 3,
    Crashes = 4,
    Promises = 5,
    Secrets = 6,
    Reach = 7,
    Limits = 8,
    Recycling = 9,
    Resolver = 10,
}

impl Group {
    const fn title(self) -> &'static str {
        match self {
            Self::Cases => "the author's cases",
            Self::Loads => "loads",
            Self::Batches => "all kinds of batches",
            Self::Classes => "classifies errors",
            Self::Crashes => "survives being killed",
            Self::Promises => "promises only what is durable",
            Self::Secrets => "keeps secrets",
            Self::Reach => "stays where it may go",
            Self::Limits => "stays within limits",
            Self::Recycling => "leaves nothing behind",
            Self::Resolver => "resolves",
        }
    }
}

/// Everything that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub plugin: String,
    pub version: String,
    /// Of the component, lower-case hex.
    pub sha256: String,
    pub level: Level,
    pub passed: bool,
    /// By group.
    pub checks: Vec<Check>,
}

/// One thing that has to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// 1 to 10 as in docs/plugins/conformance.md; 0 for the author's own cases.
    pub group: u8,
    pub title: &'static str,
    pub check: String,
    #[serde(flatten)]
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    Pass {
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    Skip {
        why: String,
    },
    Fail {
        expected: String,
        observed: String,
    },
}

impl Report {
    pub(super) fn new(manifest: &Manifest, hash: &ComponentHash, level: Level) -> Self {
        Self {
            plugin: manifest.plugin.name.clone(),
            version: manifest.plugin.version.clone(),
            sha256: hex(hash),
            level,
            passed: true,
            checks: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, checks: Checks) {
        self.checks.extend(checks.found);
        self.checks.sort_by_key(|check| check.group);
        self.passed = !self.checks.iter().any(Check::failed);
    }

    /// Number of checks that passed, were skipped, failed.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count =
            |wanted: fn(&Verdict) -> bool| self.checks.iter().filter(|check| wanted(&check.verdict)).count();
        (
            count(|verdict| matches!(verdict, Verdict::Pass { .. })),
            count(|verdict| matches!(verdict, Verdict::Skip { .. })),
            count(|verdict| matches!(verdict, Verdict::Fail { .. })),
        )
    }
}

impl Check {
    pub fn failed(&self) -> bool {
        matches!(self.verdict, Verdict::Fail { .. })
    }
}

impl Verdict {
    /// `PASS`, `SKIP` or `FAIL`, and what there is to say.
    pub fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Pass { note } => ("PASS", note.clone().unwrap_or_default()),
            Self::Skip { why } => ("SKIP", why.clone()),
            Self::Fail { expected, observed } => {
                ("FAIL", format!("expected {expected}; observed {observed}"))
            }
        }
    }
}

/// What a check wanted and what it got instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub expected: String,
    pub observed: String,
}

impl Wrong {
    pub fn new(expected: impl Into<String>, observed: impl Into<String>) -> Self {
        Self { expected: expected.into(), observed: observed.into() }
    }
}

/// The checks of one group, as they are made.
#[derive(Debug)]
pub(super) struct Checks {
    group: Group,
    found: Vec<Check>,
}

impl Checks {
    pub fn of(group: Group) -> Self {
        Self { group, found: Vec::new() }
    }

    /// A group that says nothing about this plugin.
    pub fn skipped(group: Group, why: &str) -> Self {
        let mut checks = Self::of(group);
        checks.skip(group.title(), why);
        checks
    }

    pub fn pass(&mut self, check: impl Into<String>) {
        self.push(check, Verdict::Pass { note: None });
    }

    pub fn note(&mut self, check: impl Into<String>, note: impl Into<String>) {
        self.push(check, Verdict::Pass { note: Some(note.into()) });
    }

    pub fn skip(&mut self, check: impl Into<String>, why: impl Into<String>) {
        self.push(check, Verdict::Skip { why: why.into() });
    }

    pub fn fail(&mut self, check: impl Into<String>, wrong: Wrong) {
        self.push(check, Verdict::Fail { expected: wrong.expected, observed: wrong.observed });
    }

    pub fn judge(&mut self, check: impl Into<String>, result: Result<(), Wrong>) {
        match result {
            Ok(()) => self.pass(check),
            Err(wrong) => self.fail(check, wrong),
        }
    }

    fn push(&mut self, check: impl Into<String>, verdict: Verdict) {
        let (group, title) = (self.group as u8, self.group.title());
        self.found.push(Check { group, title, check: check.into(), verdict });
    }
}

/// Whether a group is about this kind of plugin.
pub(super) fn is_about(group: Group, kind: PluginKind) -> bool {
    match group {
        Group::Batches | Group::Crashes | Group::Promises => kind == PluginKind::Sink,
        Group::Resolver => kind == PluginKind::Resolver,
        _ => true,
    }
}
