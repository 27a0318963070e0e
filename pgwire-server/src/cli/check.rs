//! `sepal check`: reads every byte of a data directory that no server has open, and changes nothing.

use std::sync::Arc;

use clap::Args;
use sepal_database::{CheckRequest, CheckSummary, check};

use crate::root_key::ServerWrappers;

use super::{
    failure::Failure,
    flags::JsonFlag,
    offline::{OfflineFlags, Teller},
    output,
    process::cannot_open,
};

#[derive(Args)]
pub struct Check {
    /// Only this tenant, by name or id [default: all, and control.db]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Leave out the content of columns and indexes: structure, lengths, keys and the log only
    #[arg(long)]
    fast: bool,
    #[command(flatten)]
    offline: OfflineFlags,
    #[command(flatten)]
    json: JsonFlag,
}

impl Check {
    pub fn run(self) -> Result<(), Failure> {
        let (data_dir, root_key) = self.offline.open()?;
        let shown = data_dir.display().to_string();
        let request = CheckRequest {
            data_dir,
            root_key,
            wrappers: Arc::new(ServerWrappers),
            tenant: self.tenant,
            fast: self.fast,
        };
        let mut teller = Teller::new(self.json.json, false);
        let checked = check(&request, &mut teller);
        let problems = teller.finish()?;
        let summary = checked.map_err(cannot_open)?;
        if self.json.json {
            output::json(&serde_json::json!({ "problems": problems, "summary": summary }))?;
        } else {
            output::talk(&told(&shown, &summary));
        }
        if summary.errors == 0 {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "{} in {shown}. Restore what is named from a backup, or see what giving it up would cost: sepal repair \
             --data {shown} --tenant TENANT --dry-run",
            count(summary.errors, "error")
        )))
    }
}

fn told(data: &str, summary: &CheckSummary) -> String {
    let CheckSummary { tenants, files, bytes, tables, rows, commits, errors, warnings } = summary;
    format!(
        "{data}: {}, {}, {bytes} bytes read; {}, {}, {} in logs; {}, {}",
        count(*tenants, "tenant"),
        count(*files, "file"),
        count(*tables, "table"),
        count(*rows, "row"),
        count(*commits, "commit"),
        count(*errors, "error"),
        count(*warnings, "warning"),
    )
}

/// `1 row`, `2 rows`
pub fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
