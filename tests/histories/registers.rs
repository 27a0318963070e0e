//! Histories of registers: a write replaces, and a read sees one value.
//!
//! A register alone does not tell the order of its versions; Elle infers a part of it. Here each row also counts its
//! versions, so that all of it is known: a read is then worth the list of all versions up to it, and the rest is the
//! checker of lists. Two committed writes with one number are a lost update by themselves.

use std::collections::{BTreeMap, HashMap};

use super::{
    anomaly::{Findings, Kind},
    history::{Key, Op, Outcome, Transaction, Value},
};

/// The value and the number of its version; `None`: the key is not there.
pub type Register = Option<(Value, i64)>;

/// The same history as one of lists.
pub fn as_lists(history: &[Transaction<Register>], findings: &mut Findings) -> Vec<Transaction> {
    let versions = versions(history, findings);
    history
        .iter()
        .map(|transaction| Transaction {
            client: transaction.client,
            begun: transaction.begun,
            outcome: transaction.outcome,
            ops: transaction.ops.iter().map(|op| as_list(op, transaction, &versions)).collect(),
        })
        .collect()
}

type Versions = HashMap<Key, BTreeMap<i64, Value>>;

/// The values of each key by their number: what committed transactions say of their own writes, then what they saw.
fn versions(history: &[Transaction<Register>], findings: &mut Findings) -> Versions {
    let mut versions = Versions::new();
    let committed = || history.iter().filter(|one| matches!(one.outcome, Outcome::Committed(_)));
    for transaction in committed() {
        for (key, value, number) in seen(transaction) {
            if !is_own(transaction, key, value) {
                continue;
            }
            let known = *versions.entry(key).or_default().entry(number).or_insert(value);
            if known != value {
                let what = format!("key {key}: {known} and {value} are both version {number}");
                let other = committed().find(|other| is_own(other, key, known)).map(ToString::to_string);
                findings.add(Kind::LostUpdate, [what, transaction.to_string(), other.unwrap_or_default()]);
            }
        }
    }
    for transaction in committed() {
        for (key, value, number) in seen(transaction) {
            versions.entry(key).or_default().entry(number).or_insert(value);
        }
    }
    versions
}

fn seen(transaction: &Transaction<Register>) -> impl Iterator<Item = (Key, Value, i64)> {
    let reads = transaction.ops.iter().filter_map(|op| match op {
        Op::Read { seen, .. } => Some(seen),
        Op::Write { .. } | Op::Undone { .. } => None,
    });
    reads.flatten().filter_map(|(key, register)| register.map(|(value, number)| (*key, value, number)))
}

fn is_own(transaction: &Transaction<Register>, key: Key, value: Value) -> bool {
    transaction.ops.contains(&Op::Write { key, value })
}

fn as_list(op: &Op<Register>, reader: &Transaction<Register>, versions: &Versions) -> Op {
    match op {
        Op::Write { key, value } => Op::Write { key: *key, value: *value },
        Op::Undone { key, value } => Op::Undone { key: *key, value: *value },
        Op::Read { seen, locked } => {
            let seen =
                seen.iter().map(|(key, register)| (*key, list(*key, *register, reader, versions))).collect();
            Op::Read { seen, locked: *locked }
        }
    }
}

/// All versions up to the one that was seen. A transaction that was rolled back saw its own in the places of those that
/// others wrote later.
fn list(key: Key, register: Register, reader: &Transaction<Register>, versions: &Versions) -> Vec<Value> {
    let Some((value, number)) = register else { return Vec::new() };
    let known = versions.get(&key).into_iter().flat_map(|versions| versions.range(..number));
    let mut older: BTreeMap<i64, Value> = known.map(|(number, value)| (*number, *value)).collect();
    let own =
        seen(reader).filter(|(of, value, at)| *of == key && *at < number && is_own(reader, key, *value));
    older.extend(own.map(|(_, value, at)| (at, value)));
    older.into_values().chain([value]).collect()
}
