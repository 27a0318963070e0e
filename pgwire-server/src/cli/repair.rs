//! `sepal repair`: moves what is damaged aside, makes the tenant open without it, and says what is gone.

use std::{
    io::{self, BufRead, IsTerminal},
    sync::Arc,
};

use clap::Args;
use sepal_database::{Loss, RepairProposal, RepairRequest, plan_repair};

use crate::root_key::ServerWrappers;

use super::{
    check::count,
    failure::Failure,
    flags::JsonFlag,
    offline::{OfflineFlags, Teller},
    output,
    process::cannot_open,
};

#[derive(Args)]
pub struct Repair {
    /// The tenant, by name or id
    #[arg(long, value_name = "TENANT")]
    tenant: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; needed where there is no terminal
    #[arg(long)]
    yes: bool,
    /// Serve rows again of which it is not known any more which were deleted, rather than none of them
    #[arg(long)]
    resurrect_deleted: bool,
    #[command(flatten)]
    offline: OfflineFlags,
    #[command(flatten)]
    json: JsonFlag,
}

impl Repair {
    pub fn run(self) -> Result<(), Failure> {
        let (data_dir, root_key) = self.offline.open()?;
        let (tenant, resurrect_deleted) = (self.tenant.clone(), self.resurrect_deleted);
        let mut teller = Teller::new(self.json.json, false);
        let wrappers = Arc::new(ServerWrappers);
        let request = RepairRequest { data_dir, root_key, wrappers, tenant, resurrect_deleted };
        let planned = plan_repair(request, &mut teller);
        teller.finish()?;
        let proposal = planned.map_err(cannot_open)?;
        if !self.json.json {
            show(&proposal);
        }
        if self.dry_run || proposal.losses.is_empty() {
            if self.json.json {
                output::json(&as_json(&proposal))?;
            }
            return left(proposal.left.len() as u64);
        }
        if !self.yes {
            confirm(&self.tenant)?;
        }
        let mut json = as_json(&proposal);
        let mut teller = Teller::new(false, self.json.json);
        let repaired = proposal.apply(&mut teller);
        teller.finish()?;
        let repaired = repaired?;
        if self.json.json {
            json["report"] = repaired.report.display().to_string().into();
            json["errors_after"] = repaired.summary.errors.into();
            output::json(&json)?;
        } else {
            output::talk(&format!(
                "Repaired. What was moved aside, and the report: {}",
                repaired.report.display()
            ));
        }
        left(repaired.summary.errors)
    }
}

/// What a repair has no sound way with is still there afterwards.
fn left(errors: u64) -> Result<(), Failure> {
    match errors {
        0 => Ok(()),
        errors => Err(Failure::failed(format!(
            "{} cannot be repaired: restore the tenant from a backup, or use it as it is. A damaged snapshot goes with \
             DROP SNAPSHOT",
            count(errors, "error")
        ))),
    }
}

fn show(proposal: &RepairProposal) {
    if proposal.losses.is_empty() {
        output::talk("Nothing is to be repaired.");
        return;
    }
    output::talk(&format!("Repairing tenant {} gives up:", proposal.tenant));
    for loss in &proposal.losses {
        output::talk(&format!("  {}", sentence(loss)));
    }
    if !proposal.files.is_empty() {
        output::talk(&format!("These files are moved to {}:", proposal.quarantine.display()));
        for file in &proposal.files {
            output::talk(&format!("  tenants/{file}"));
        }
    }
    for problem in &proposal.left {
        output::talk(&format!(
            "It does nothing about: {}: {}: {}",
            problem.file, problem.what, problem.consequence
        ));
    }
}

fn sentence(loss: &Loss) -> String {
    match loss {
        Loss::Rows { table, environment, name, first_row, last_row, rows, file, .. } => format!(
            "{} of table \"{name}\" ({table}, environment {environment}), with row ids from {first_row} to {last_row}: \
             {file}",
            count(*rows, "row")
        ),
        Loss::Index { name, file, .. } => {
            format!("index \"{name}\" over a part of its table, until it is built again: {file}")
        }
        Loss::Deletions { name, table, rows, file, .. } => {
            format!(
                "the deletion of {} of table \"{name}\" ({table}), served again: {file}",
                count(*rows, "row")
            )
        }
        Loss::Commits { after, known, last_known, file, .. } => {
            let behind = match last_known {
                Some(last) => format!("{} at least, up to commit {last}", count(*known, "commit")),
                None => "how many these were is not known".to_owned(),
            };
            format!("every commit after commit {after} ({behind}): {file}")
        }
        Loss::OldLog { file, .. } => {
            format!("changes that pipelines may not have delivered yet, reset those that stop: {file}")
        }
        Loss::Manifest { file, instead, snapshots, .. } => {
            let kept = match &snapshots[..] {
                [] => "None is known from before".to_owned(),
                known => format!("Those that stay: {}", known.join(", ")),
            };
            format!(
                "every snapshot that was named since manifest {instead:016x} was written; {kept}. No row goes: that \
                 manifest and the log after it take the place of {file}"
            )
        }
        Loss::Past { file, snapshots, .. } if snapshots.is_empty() => {
            format!("a part of the past, which AS OF reads: {file}")
        }
        Loss::Past { file, snapshots, .. } => {
            format!("snapshot {} of the past: {file}", snapshots.join(", "))
        }
    }
}

fn as_json(proposal: &RepairProposal) -> serde_json::Value {
    let left: Vec<String> =
        proposal.left.iter().map(|problem| format!("{}: {}", problem.file, problem.what)).collect();
    serde_json::json!({
        "tenant": proposal.tenant.to_string(),
        "losses": proposal.losses,
        "files": proposal.files,
        "quarantine": proposal.quarantine.display().to_string(),
        "left": left,
    })
}

/// What is given up is confirmed by typing the name.
fn confirm(tenant: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "repairing {tenant} gives up what is listed: confirm on a terminal, or pass --yes"
        )));
    }
    output::talk(&format!("Nothing was changed yet. Type {tenant} to go on:"));
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed)?;
    if typed.trim() == tenant {
        return Ok(());
    }
    Err(Failure::failed(format!("\"{}\" is not \"{tenant}\": nothing was changed", typed.trim())))
}
