//! `sepal tenant create|list|quota|drop|rotate-key|key-status|byok`, answered by the running server.

use std::{
    io::{self, BufRead, IsTerminal},
    path::PathBuf,
};

use clap::{Args, Subcommand};

use crate::admin::{Answer, EncryptionAnswer, Request, client};

use super::{
    audit, byok,
    failure::Failure,
    flags::{DataFlags, JsonFlag},
    key::unexpected,
    output, rotate,
};

#[derive(Subcommand)]
pub enum Tenant {
    /// Make a tenant, with an encryption key and files of its own
    Create(Create),
    /// List the tenants
    List(List),
    /// Say how much disk a tenant may take
    Quota(Quota),
    /// Drop a tenant: its encryption key is destroyed, its data is gone for good
    Drop(DropTenant),
    /// Replace a tenant's encryption key while the server runs
    RotateKey(rotate::RotateKey),
    /// Show a tenant's encryption keys, and how far their replacement is
    KeyStatus(rotate::KeyStatus),
    /// Let a tenant bring a key of its own (BYOK)
    #[command(subcommand)]
    Byok(byok::Byok),
}

#[derive(Args)]
pub struct Create {
    /// 1 to 63 lower-case letters, digits, dashes and underscores
    name: String,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Quota {
    /// The tenant's name
    name: String,
    /// MiB that its files may have, its log included; 0 for as much as fits
    #[arg(long, value_name = "MIB", required_unless_present = "default")]
    disk_mib: Option<u64>,
    /// What the server's setting tenant_disk_mib says, as for tenants without a quota of their own
    #[arg(long, conflicts_with = "disk_mib")]
    default: bool,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct DropTenant {
    /// The tenant's name
    name: String,
    /// Do not ask for the name again; needed where there is no terminal
    #[arg(long)]
    yes: bool,
    /// Save the certificate of destruction to a file
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

impl Tenant {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(),
            Self::List(list) => list.run(),
            Self::Quota(quota) => quota.run(),
            Self::Drop(drop) => drop.run(),
            Self::RotateKey(rotate) => rotate.run(),
            Self::KeyStatus(status) => status.run(),
            Self::Byok(byok) => byok.run(),
        }
    }
}

impl Create {
    fn run(self) -> Result<(), Failure> {
        let data = self.data.data()?;
        let answer = client::ask(&data, &Request::TenantCreate { name: self.name })?;
        let Answer::Tenant(tenant) = answer else { return Err(unexpected()) };
        if self.json.json {
            return output::json(&tenant);
        }
        output::data(&tenant.name)?;
        output::talk(&format!(
            "Made. Next: sepal key create --tenant {} --data {}",
            tenant.name,
            data.display()
        ));
        Ok(())
    }
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let Answer::Tenants(tenants) = client::ask(&self.data.data()?, &Request::TenantList)? else {
            return Err(unexpected());
        };
        if self.json.json {
            return output::json(&tenants);
        }
        let rows: Vec<Vec<String>> =
            tenants.iter().map(|tenant| vec![tenant.name.clone(), tenant.id.clone()]).collect();
        output::rows(&["tenant", "id"], &rows, "No tenants yet. Make one: sepal tenant create NAME")
    }
}

impl Quota {
    fn run(self) -> Result<(), Failure> {
        let request = Request::TenantQuota { name: self.name.clone(), disk_mib: self.disk_mib };
        let Answer::Done = client::ask(&self.data.data()?, &request)? else {
            return Err(unexpected());
        };
        if self.json.json {
            return output::json(&serde_json::json!({ "tenant": self.name, "disk_mib": self.disk_mib }));
        }
        output::talk(&match self.disk_mib {
            None => format!("{} may take as much disk as the server's setting says.", self.name),
            Some(0) => format!("{} may take as much disk as there is.", self.name),
            Some(mib) => format!(
                "{} may take {mib} MiB of disk. Above that it takes no rows; deleting works on.",
                self.name
            ),
        });
        Ok(())
    }
}

impl DropTenant {
    fn run(self) -> Result<(), Failure> {
        let data = self.data.data()?;
        if !self.yes {
            confirm(&self.name)?;
        }
        let answer = client::ask(&data, &Request::TenantDrop { name: self.name.clone() })?;
        let Answer::Encryption(EncryptionAnswer::Certificate(Some(certificate))) = answer else {
            return Err(unexpected());
        };
        if !self.json.json {
            output::talk(&format!("Dropped {}. Its key is destroyed. The certificate:", self.name));
        }
        audit::show(&certificate, self.certificate.as_deref(), self.json.json)?;
        if !self.json.json && certificate.certificate.contains("\"files_left\":") {
            output::talk(
                "Not all files could be removed (files_left): nothing in them can be opened, remove them by hand.",
            );
        }
        Ok(())
    }
}

/// What cannot be undone is confirmed by typing the name.
fn confirm(name: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "dropping {name} cannot be undone: confirm on a terminal, or pass --yes"
        )));
    }
    output::talk(&format!(
        "This destroys every table of {name} and cannot be undone. Type its name to go on:"
    ));
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed)?;
    if typed.trim() == name {
        return Ok(());
    }
    Err(Failure::failed(format!("\"{}\" is not \"{name}\": nothing was dropped", typed.trim())))
}
