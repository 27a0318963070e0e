//! What a session knows about itself and the server: names, settings, addresses, encodings; and how it ends others.

use std::net::SocketAddr;

use sepal_types::{Error, Result, SqlState};

use super::super::CatalogContext;
use super::super::names::name_list;
use super::super::sessions::Signal;
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
    Function::new("current_schema", "", "name", |context, _| {
        Ok(context.snapshot.searched_schemas(&context.environment).next().into())
    }),
    Function::new("current_schemas", "boolean", "name[]", |context, arguments| {
        let implicit = arguments[0].as_bool().unwrap_or_default().then_some("pg_catalog");
        let own = context.snapshot.searched_schemas(&context.environment);
        Ok(name_list(implicit.into_iter().chain(own)))
    }),
    Function::new("get_current_ts_config", "", "text", |context, _| {
        let mut settings = context.settings.iter();
        let found = settings.find(|setting| setting.name == "default_text_search_config");
        let name = found.map_or("pg_catalog.english", |found| found.setting.as_str());
        Ok(name.strip_prefix("pg_catalog.").unwrap_or(name).into())
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
    Function::new("inet_client_addr", "", "text", |context, _| {
        Ok(client(context).map(|client| client.ip().to_string()).into())
    }),
    Function::new("inet_client_port", "", "integer", |context, _| {
        Ok(client(context).map(|client| i32::from(client.port())).into())
    }),
    Function::acting("pg_cancel_backend", "integer", "boolean", |context, arguments| {
        signal(context, arguments, Signal::Cancel)
    }),
    Function::acting("pg_terminate_backend", "integer, bigint?", "boolean", terminate),
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

/// Where the session's client is.
fn client(context: &CatalogContext) -> Option<SocketAddr> {
    let own = context.sessions.iter().find(|session| session.pid == context.backend_pid)?;
    own.details.as_ref()?.client
}

fn signal(context: &CatalogContext, arguments: &[Value], signal: Signal) -> Result<Value> {
    if arguments.iter().any(Value::is_null) {
        return Ok(Value::Null);
    }
    let pid = int_argument(arguments, 0)?;
    let pid = i32::try_from(pid)
        .map_err(|_| Error::new(SqlState::NumericValueOutOfRange, "integer out of range"))?;
    context.signals.signal(pid, signal).map(Value::Bool)
}

/// Without waiting for the end of the session: functions run on threads that all tenants share.
fn terminate(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    match optional(arguments, 1).map(|_| int_argument(arguments, 1)).transpose()? {
        Some(i64::MIN..=-1) => {
            Err(Error::new(SqlState::NumericValueOutOfRange, "\"timeout\" must not be negative"))
        }
        Some(1..) => Err(Error::unsupported("pg_terminate_backend() with a timeout is not supported")
            .with_hint("Leave the timeout out, and look whether pg_stat_activity still shows the session.")),
        Some(0) | None => signal(context, arguments, Signal::Terminate),
    }
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
