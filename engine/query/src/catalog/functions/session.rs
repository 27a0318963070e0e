//! What a session knows about itself and the server: names, settings, addresses, encodings.

use sepal_types::{Error, Result, SqlState};

use super::super::CatalogContext;
use super::super::names::name_list;
use super::super::value::Value;
use super::{Function, int_argument, optional, text_argument};

/// The Postgres release whose behaviour Sepal follows.
const SERVER_VERSION: &str = "17.2";
/// `UTF8` in Postgres' table of encodings; the only one Sepal has.
const UTF8: i64 = 6;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("version", "", "text", |_, _| {
        let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        let release = env!("CARGO_PKG_VERSION");
        Ok(format!("PostgreSQL {SERVER_VERSION} (Sepal {release}) on {target}, compiled by rustc, 64-bit")
            .into())
    }),
    Function::new("current_catalog", "", "name", environment),
    Function::new("current_database", "", "name", environment),
    Function::new("current_role", "", "name", user),
    Function::new("current_user", "", "name", user),
    Function::new("session_user", "", "name", user),
    Function::new("user", "", "name", user),
    Function::new("current_schema", "", "name", |_, _| Ok("public".into())),
    Function::new("current_schemas", "boolean", "name[]", |_, arguments| {
        let implicit = arguments[0].as_bool().unwrap_or_default();
        Ok(if implicit { name_list(["pg_catalog", "public"]) } else { name_list(["public"]) })
    }),
    Function::new("current_setting", "text, boolean?", "text", current_setting),
    Function::new("pg_backend_pid", "", "integer", |context, _| Ok(context.backend_pid.into())),
    Function::new("pg_is_in_recovery", "", "boolean", no),
    Function::new("pg_is_wal_replay_paused", "", "boolean", no),
    Function::new("pg_jit_available", "", "boolean", no),
    Function::new("pg_is_other_temp_schema", "oid", "boolean", no),
    Function::new("pg_my_temp_schema", "", "oid", |_, _| Ok(0.into())),
    Function::new("pg_postmaster_start_time", "", "timestamp with time zone", started),
    Function::new("pg_conf_load_time", "", "timestamp with time zone", started),
    Function::new("pg_blocking_pids", "integer", "integer[]", |context, arguments| {
        let pid = int_argument(arguments, 0)?;
        Ok(Value::list(i32::try_from(pid).map(|pid| (context.blocking)(pid)).unwrap_or_default()))
    }),
    Function::new("inet_server_addr", "", "text", null),
    Function::new("inet_server_port", "", "integer", null),
    Function::new("inet_client_addr", "", "text", null),
    Function::new("inet_client_port", "", "integer", null),
    Function::new("txid_current", "", "bigint", transaction),
    Function::new("pg_current_xact_id", "", "bigint", transaction),
    Function::new("txid_current_if_assigned", "", "bigint", null),
    Function::new("getdatabaseencoding", "", "name", |_, _| Ok("UTF8".into())),
    Function::new("pg_client_encoding", "", "name", |_, _| Ok("UTF8".into())),
    Function::new("pg_encoding_to_char", "integer", "name", |_, arguments| {
        Ok(match int_argument(arguments, 0)? {
            0 => "SQL_ASCII",
            8 => "LATIN1",
            UTF8 => "UTF8",
            _ => "",
        }
        .into())
    }),
    Function::new("pg_char_to_encoding", "name", "integer", |_, arguments| {
        Ok(match text_argument(arguments, 0).to_ascii_uppercase().as_str() {
            "SQL_ASCII" => 0,
            "LATIN1" => 8,
            "UTF8" | "UTF-8" | "UNICODE" => UTF8,
            _ => -1,
        }
        .into())
    }),
    Function::new("pg_encoding_max_length", "integer", "integer", |_, _| Ok(4.into())),
];

fn environment(context: &CatalogContext, _: &[Value]) -> Result<Value> {
    Ok(Value::text(&context.environment))
}

fn user(context: &CatalogContext, _: &[Value]) -> Result<Value> {
    Ok(Value::text(&context.user))
}

fn no(_: &CatalogContext, _: &[Value]) -> Result<Value> {
    Ok(false.into())
}

fn null(_: &CatalogContext, _: &[Value]) -> Result<Value> {
    Ok(Value::Null)
}

fn started(context: &CatalogContext, _: &[Value]) -> Result<Value> {
    Ok(Value::Time(context.start_time_us))
}

/// The commit that the statement sees: it grows with every commit, as a transaction id does.
fn transaction(context: &CatalogContext, _: &[Value]) -> Result<Value> {
    Ok(context.snapshot.lsn().0.into())
}

fn current_setting(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let name = text_argument(arguments, 0).to_ascii_lowercase();
    let found = context.settings.iter().find(|setting| setting.name.eq_ignore_ascii_case(&name));
    match found {
        Some(found) => Ok(found.shown.as_ref().unwrap_or(&found.setting).clone().into()),
        None if optional(arguments, 1).and_then(Value::as_bool) == Some(true) => Ok(Value::Null),
        None => {
            let message = format!("unrecognized configuration parameter \"{name}\"");
            Err(Error::new(SqlState::UndefinedObject, message))
        }
    }
}
