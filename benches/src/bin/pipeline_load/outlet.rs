//! A sink that posts to a receiver, and a pipeline into it.

use std::{
    thread,
    time::{Duration, Instant},
};

use sepal_benches::{Failure, connection::Connection, receiver::Receiver};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// `options`: more of the plugin's, each with a comma before it.
pub fn create_sink(
    connection: &mut Connection,
    name: &str,
    receiver: &Receiver,
    options: &str,
) -> Result<(), Failure> {
    let origin = receiver.origin();
    connection.query(&format!(
        "CREATE SINK {name} USING PLUGIN webhook OPTIONS (url '{origin}/in'{options}) ALLOW HOSTS ('{origin}')"
    ))?;
    Ok(())
}

/// All of a table's columns. `with`: as in WITH (…).
pub fn create_pipeline(
    connection: &mut Connection,
    name: &str,
    table: &str,
    sink: &str,
    with: &str,
) -> Result<(), Failure> {
    let sql = format!("CREATE PIPELINE {name} AS SELECT * FROM {table} INTO SINK {sink} WITH ({with})");
    connection.query(&sql)?;
    Ok(())
}

/// A column of the pipeline's row in `sepal_pipeline_status`.
pub fn status(connection: &mut Connection, name: &str, column: &str) -> Result<String, Failure> {
    let sql = format!("SELECT {column} FROM sepal_pipeline_status WHERE pipeline = '{name}'");
    Ok(connection.value(&sql)?.unwrap_or_default())
}

/// Stops it and waits until it rests.
pub fn pause(connection: &mut Connection, name: &str) -> Result<(), Failure> {
    connection.query(&format!("ALTER PIPELINE {name} PAUSE"))?;
    wait_until(connection, name, "state", "paused")
}

/// Waits until the sink has everything that was committed.
pub fn drained(connection: &mut Connection, name: &str) -> Result<(), Failure> {
    wait_until(connection, name, "lag_rows", "0")
}

fn wait_until(connection: &mut Connection, name: &str, column: &str, wanted: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let is = status(connection, name, column)?;
        if is == wanted {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            let error = status(connection, name, "last_error")?;
            return Err(format!(
                "pipeline {name}: {column} is {is:?} and not {wanted:?} after {PATIENCE:?}; last_error: {error:?}"
            )
            .into());
        }
        thread::sleep(LOOK);
    }
}
