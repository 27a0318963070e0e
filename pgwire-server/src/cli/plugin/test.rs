//! `sepal plugin test`: the author's cases and the conformance kit. Exit 1 if anything failed.

use std::io::{self, IsTerminal};

use clap::Args;
use sepal_plugins::kit::{Check, KitOptions, Level, Report, TestCase, Verdict};

use super::{
    failed,
    source::{Source, kit},
};
use crate::cli::{
    failure::Failure,
    flags::JsonFlag,
    output::{self, Style},
    runtime,
};

#[derive(Args)]
pub struct Test {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    options: TestFlags,
    /// Print every check, also those that passed
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    json: JsonFlag,
}

/// How much is asked of the plugin.
#[derive(Args, Clone, Copy)]
pub struct TestFlags {
    /// What the plugin is held to: L0 loads, L1 at-least-once, L2 idempotent, L3 transactional [default: what its
    /// manifest claims]
    #[arg(long, value_name = "LEVEL")]
    level: Option<Level>,
    /// Kill at every call to the host, however many there are, and make 10,000 instances
    #[arg(long)]
    thorough: bool,
    /// Have the host show that it contains what breaks limits
    #[arg(long)]
    host: bool,
}

impl TestFlags {
    fn options(self) -> KitOptions {
        let options = if self.thorough { KitOptions::thorough() } else { KitOptions::default() };
        KitOptions { level: self.level, host: self.host, ..options }
    }
}

impl Test {
    pub fn run(self) -> Result<(), Failure> {
        let report = examine(&self.source, self.options)?;
        if self.json.json {
            output::json(&report)?;
        } else {
            print(&report, self.all)?;
        }
        verdict(&report)
    }
}

/// Builds, and holds the plugin to its level.
pub fn examine(source: &Source, flags: TestFlags) -> Result<Report, Failure> {
    let package = source.package()?;
    let case: TestCase = source.case()?;
    let kit = kit()?;
    runtime()?.block_on(kit.run(&package, &case, &flags.options())).map_err(failed)
}

/// An error if a check failed.
pub fn verdict(report: &Report) -> Result<(), Failure> {
    let (passed, skipped, wrong) = report.counts();
    if wrong > 0 {
        return Err(Failure::failed(format!("{wrong} of {} checks failed", passed + wrong)));
    }
    output::talk(&format!(
        "{} {} conforms at {}: {passed} checks passed, {skipped} skipped.",
        report.plugin, report.version, report.level
    ));
    Ok(())
}

/// On a terminal a line for each group and the checks that failed; elsewhere every check.
pub fn print(report: &Report, all: bool) -> Result<(), Failure> {
    if all || !io::stdout().is_terminal() {
        let rows: Vec<Vec<String>> = report.checks.iter().map(row).collect();
        return output::rows(&["group", "", "check", "", "observed"], &rows, "no checks");
    }
    output::rows(&["group", "", "passed", "skipped", "failed"], &groups(report), "no checks")?;
    let style = Style::of_stdout();
    for check in report.checks.iter().filter(|check| check.failed()) {
        let Verdict::Fail { expected, observed } = &check.verdict else { continue };
        let title = style.warning(&format!("FAIL {} {}: {}", check.group, check.title, check.check));
        output::data(&format!("{title}\n  expected {expected}\n  observed {observed}"))?;
    }
    Ok(())
}

fn row(check: &Check) -> Vec<String> {
    let (verdict, told) = check.verdict.describe();
    // A line is one check, whatever the plugin says.
    let told = told.replace(['\n', '\t', '\r'], " ");
    vec![check.group.to_string(), check.title.to_owned(), check.check.clone(), verdict.to_owned(), told]
}

fn groups(report: &Report) -> Vec<Vec<String>> {
    let mut groups: Vec<(u8, &str)> = report.checks.iter().map(|check| (check.group, check.title)).collect();
    groups.dedup();
    let count = |group: u8, wanted: fn(&Verdict) -> bool| {
        let of_group = report.checks.iter().filter(|check| check.group == group);
        of_group.filter(|check| wanted(&check.verdict)).count().to_string()
    };
    let line = |(group, title): (u8, &str)| {
        vec![
            group.to_string(),
            title.to_owned(),
            count(group, |verdict| matches!(verdict, Verdict::Pass { .. })),
            count(group, |verdict| matches!(verdict, Verdict::Skip { .. })),
            count(group, |verdict| matches!(verdict, Verdict::Fail { .. })),
        ]
    };
    groups.into_iter().map(line).collect()
}
