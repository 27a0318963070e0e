//! An inventory of the instance, once a day: per tenant its tables with rows and bytes, and its key's epoch.
//!
//! ```text
//! census/2026-11-22.json := inventory, one line of JSON | '\n' | {"mac":"<hex>"} | '\n'
//! ```
//! The first line has ids; a tenant's part is sealed under a key derived from the tenant's and ends with it. It is made
//! of what the day's backup noted: nothing is read twice.

use base64::{Engine, engine::general_purpose::STANDARD};
use sepal_database::{
    Error, Result, SqlState, Tenant, TenantId,
    backup::{Source, TableFacts, open_facts, open_older_facts, seal_facts},
};
use serde::{Deserialize, Serialize};

use crate::{
    create::blocking,
    entry::{self, Entry, FORMAT, TenantEntry},
    keys, limits, names,
    repository::{Repository, damaged},
};

#[derive(Debug, Serialize, Deserialize)]
struct Census {
    version: u32,
    day: String,
    backup: String,
    tenants: Vec<Sealed>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Sealed {
    tenant: String,
    /// `None`: its key was not to be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    facts: Option<String>,
}

/// What is known of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    pub name: String,
    pub tables: Vec<TableCount>,
    /// Of its files in the backup.
    pub bytes: u64,
    pub key_epoch: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCount {
    pub environment: String,
    /// Empty in a census that an older program has made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema: String,
    pub name: String,
    pub rows: u64,
    pub bytes: u64,
}

/// A line of a census.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    pub tenant: String,
    /// As it is called now; `None` for one that was dropped since.
    #[serde(default)]
    pub name: Option<String>,
    /// `None` where the tenant's part does not open.
    pub inventory: Option<Inventory>,
    /// Why it does not.
    #[serde(default)]
    pub why: Option<String>,
}

/// Writes the census of a day from a backup.
pub(crate) async fn write(source: &Source, repository: &Repository, day: &str, of: &Entry) -> Result<()> {
    let (day_, of_) = (day.to_owned(), of.clone());
    let bytes = blocking(source, move |source| encode(source, &day_, &of_)).await?;
    let name = names::census(day);
    limits::check(&name, &bytes, limits::ENTRY_BYTES)?;
    repository.put(&name, bytes).await.map(drop)
}

fn encode(source: &Source, day: &str, of: &Entry) -> Result<Vec<u8>> {
    let known = source.control().list_tenants()?;
    let mut tenants = Vec::with_capacity(of.tenants.len());
    for tenant in &of.tenants {
        let id = tenant.id()?;
        // Dropped since.
        let Some(named) = known.iter().find(|known| known.id == id) else { continue };
        // Its own provider may be away, or refuse: that takes this tenant's part and no more.
        let facts = sealed(source, day, named, tenant);
        if let Err(error) = &facts {
            tracing::warn!(tenant = %id, %error, "a tenant is without its part in the census");
        }
        tenants.push(Sealed { tenant: tenant.tenant.clone(), facts: facts.ok() });
    }
    let census = Census { version: FORMAT, day: day.to_owned(), backup: of.id.clone(), tenants };
    entry::signed(source.control(), &census)
}

/// A tenant's part.
fn sealed(source: &Source, day: &str, named: &Tenant, tenant: &TenantEntry) -> Result<String> {
    let control = source.control();
    let count = |facts: TableFacts| TableCount {
        environment: facts.environment,
        schema: facts.schema,
        name: facts.name,
        rows: facts.rows,
        bytes: facts.bytes,
    };
    let inventory = Inventory {
        name: named.name.to_string(),
        tables: tenant.open_facts(control)?.into_iter().map(count).collect(),
        bytes: tenant.bytes(),
        key_epoch: source.key_epoch(named.id)?,
    };
    let plain = serde_json::to_vec(&inventory).map_err(|error| Error::bug(format!("as JSON: {error}")))?;
    Ok(STANDARD.encode(seal_facts(control, named.id, &what(day), &plain)?))
}

/// Reads the census of a day. A tenant's part that does not open keeps no other back: it says why. One that is under a
/// key which was retired since opens as long as a backup has that key.
///
/// Errors: 42704 there is none; XX001 it was changed.
pub async fn read(source: &Source, repository: &Repository, day: &str) -> Result<Vec<Counted>> {
    let name = names::census(day);
    let Some(bytes) = repository.get(&name, limits::ENTRY_BYTES).await? else {
        return Err(Error::new(SqlState::UndefinedObject, format!("there is no census of {day}"))
            .with_hint("One is made with the first backup of a day; days are UTC."));
    };
    let (census, known) = blocking(source, move |source| {
        let control = source.control();
        let (line, mac) = entry::lines(&name, &bytes)?;
        entry::check_mac(control, &name, (&line, &mac))?;
        let census: Census = serde_json::from_str(&line).map_err(|error| damaged(&name, error))?;
        entry::check_version(&name, census.version)?;
        Ok((census, control.list_tenants()?))
    })
    .await?;
    let mut counted = Vec::with_capacity(census.tenants.len());
    for Sealed { tenant, facts } in census.tenants {
        let named = TenantId::parse(&tenant).and_then(|id| known.iter().find(|known| known.id == id));
        let inventory = match (named, facts) {
            (Some(named), Some(facts)) => part(source, repository, named.id, day, facts).await,
            (None, _) => Err("the tenant was dropped since".to_owned()),
            (Some(_), None) => Err("its key was not to be had when the census was made".to_owned()),
        };
        let name = named.map(|named| named.name.to_string());
        let (inventory, why) = match inventory {
            Ok(inventory) => (Some(inventory), None),
            Err(why) => (None, Some(why)),
        };
        counted.push(Counted { tenant, name, inventory, why });
    }
    Ok(counted)
}

/// A tenant's part. Errors: why it does not open.
async fn part(
    source: &Source,
    repository: &Repository,
    id: TenantId,
    day: &str,
    facts: String,
) -> Result<Inventory, String> {
    let day_ = day.to_owned();
    let opened = blocking(source, move |source| {
        let sealed = decoded(&day_, &facts)?;
        let opened = open_facts(source.control(), id, &what(&day_), &sealed);
        Ok((opened, sealed))
    });
    let told = |error: Error| error.operator_message().to_owned();
    let (opened, sealed) = opened.await.map_err(told)?;
    let plain = match opened {
        Ok(plain) => plain,
        // Its provider is away.
        Err(error) if error.state() != SqlState::DataCorrupted => return Err(told(error)),
        Err(error) => {
            let older = open_retired(source, repository, id, day, sealed).await.map_err(told)?;
            older.ok_or_else(|| {
                format!("{}: no backup that is kept has the key that it is under", error.operator_message())
            })?
        }
    };
    serde_json::from_slice(&plain).map_err(|error| told(damaged(&names::census(day), error)))
}

/// Under a key that backups of that time have, and control.db has no more.
async fn open_retired(
    source: &Source,
    repository: &Repository,
    id: TenantId,
    day: &str,
    sealed: Vec<u8>,
) -> Result<Option<Vec<u8>>> {
    let sets = keys::load_all(repository, source.control(), id).await?;
    let day = day.to_owned();
    blocking(source, move |source| {
        for keys in sets {
            if let Some(plain) = open_older_facts(source.control(), id, &keys, (&what(&day), &sealed))? {
                return Ok(Some(plain));
            }
        }
        Ok(None)
    })
    .await
}

fn decoded(day: &str, facts: &str) -> Result<Vec<u8>> {
    STANDARD.decode(facts).map_err(|error| damaged(&names::census(day), error))
}

/// What facts are bound to: a census is no backup.
fn what(day: &str) -> String {
    format!("census {day}")
}

/// Whether a day has its census.
pub(crate) async fn is_made(repository: &Repository, day: &str) -> Result<bool> {
    Ok(repository.get(&names::census(day), limits::ENTRY_BYTES).await?.is_some())
}
