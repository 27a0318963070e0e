//! The checker: what is wrong with a history of lists, in itself and as a graph.
//!
//! After Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", VLDB 2020. A list
//! that was read is the history of its key; from all of them follow the order of writes, who read whom, and who did
//! not see whom yet. What a level promises is that certain cycles are not there:
//!
//! - REPEATABLE READ is snapshot isolation: none but those with two anti-dependencies in a row (write skew).
//! - READ COMMITTED takes a snapshot for each statement. A statement that reads is therefore a node of its own, before
//!   its transaction's; writes, and the end, are the transaction's. Then no cycle at all is allowed. This is more than
//!   the standard asks, and what PostgreSQL does.
//!
//! Both hold with the order of real time among the edges, because there is one server: what was acknowledged before
//! a transaction began is seen by it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    anomaly::{Anomaly, Findings, Kind},
    dependencies::{Dependencies, Part},
    graph::{Graph, Step, Why},
    history::{Key, Level, Op, Outcome, Tick, Transaction, Value},
};

/// Anomalies, and numbers that show whether the history could have had any.
pub struct Verdict {
    pub anomalies: Vec<Anomaly>,
    pub committed: usize,
    pub aborted: usize,
    pub unknown: usize,
    pub writes: usize,
    pub reads: usize,
    pub anti_dependencies: usize,
}

pub fn check(history: &[Transaction], level: Level) -> Verdict {
    let lists = Lists::of(history);
    let mut findings = Findings::default();
    for (number, transaction) in history.iter().enumerate() {
        lists.direct(number, &mut findings);
        internal(transaction, level, &mut findings);
    }
    lists.dirty_updates(&mut findings);
    lists.lost_writes(&mut findings);
    let dependencies = Dependencies::of(&lists, level);
    cycles(&dependencies, &lists, &mut findings);
    let of = |wanted: fn(&Outcome) -> bool| history.iter().filter(|one| wanted(&one.outcome)).count();
    let count = |wanted: fn(&Why) -> bool| dependencies.graph.count(wanted);
    Verdict {
        anomalies: findings.into_vec(),
        committed: of(|outcome| matches!(outcome, Outcome::Committed(_))),
        aborted: of(|outcome| matches!(outcome, Outcome::Aborted)),
        unknown: of(|outcome| matches!(outcome, Outcome::Unknown)),
        writes: count(|why| matches!(why, Why::WriteWrite { .. })),
        reads: count(|why| matches!(why, Why::WriteRead { .. })),
        anti_dependencies: count(|why| matches!(why, Why::ReadWrite { .. })),
    }
}

/// Who wrote a value.
#[derive(Clone, Copy)]
pub struct Writer {
    pub transaction: usize,
    undone: bool,
    /// Its transaction wrote no later value to the key.
    last: bool,
}

/// A history with what its reads tell of each key.
pub struct Lists<'a> {
    pub history: &'a [Transaction],
    pub writers: HashMap<(Key, Value), Writer>,
    /// The longest list that a committed transaction read of each key: the order of its writes.
    pub orders: BTreeMap<Key, Vec<Value>>,
}

impl<'a> Lists<'a> {
    fn of(history: &'a [Transaction]) -> Lists<'a> {
        let mut writers = HashMap::new();
        let mut orders: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
        for (number, transaction) in history.iter().enumerate() {
            let mut last: HashMap<Key, Value> = HashMap::new();
            for (key, value, undone) in transaction.writes() {
                let known = writers.insert((key, value), Writer { transaction: number, undone, last: false });
                assert!(known.is_none(), "the workload wrote {value} to {key} twice");
                if !undone {
                    last.insert(key, value);
                }
            }
            for entry in last {
                writers.get_mut(&entry).expect("it was just written").last = true;
            }
            if !matches!(transaction.outcome, Outcome::Committed(_)) {
                continue;
            }
            for (key, list) in reads(transaction) {
                let longest = orders.entry(key).or_default();
                if list.len() > longest.len() {
                    longest.clone_from(list);
                }
            }
        }
        Lists { history, writers, orders }
    }

    /// Whether what it wrote is there for good, as far as the history tells: of a COMMIT without an answer, whether
    /// anybody has seen it.
    pub fn took_effect(&self, transaction: usize) -> bool {
        match self.history[transaction].outcome {
            Outcome::Committed(_) => true,
            Outcome::Aborted => false,
            Outcome::Unknown => self.history[transaction]
                .writes()
                .any(|(key, value, undone)| !undone && self.order(key).contains(&value)),
        }
    }

    pub fn order(&self, key: Key) -> &[Value] {
        self.orders.get(&key).map_or(&[], Vec::as_slice)
    }

    fn rolled_back(&self, writer: &Writer) -> bool {
        writer.undone || self.history[writer.transaction].outcome == Outcome::Aborted
    }

    pub fn tell(&self, transaction: usize) -> String {
        format!("T{transaction}: {}", self.history[transaction])
    }

    /// What one transaction saw that nobody should.
    fn direct(&self, reader: usize, findings: &mut Findings) {
        let committed = matches!(self.history[reader].outcome, Outcome::Committed(_));
        for (key, list) in reads(&self.history[reader]) {
            let mut seen = HashSet::new();
            for (at, value) in list.iter().enumerate() {
                if !seen.insert(value) {
                    let story = [format!("{value} is twice in key {key}"), self.tell(reader)];
                    findings.add(Kind::DuplicateElement, story);
                }
                let Some(writer) = self.writers.get(&(key, *value)) else {
                    let story = [format!("nobody wrote {value} to key {key}"), self.tell(reader)];
                    findings.add(Kind::GarbageRead, story);
                    continue;
                };
                let own = writer.transaction == reader;
                let told = |what: &str| {
                    let what = format!("key {key}: {value} {what}");
                    [what, self.tell(writer.transaction), self.tell(reader)]
                };
                if writer.undone || !own && self.rolled_back(writer) {
                    findings.add(Kind::AbortedRead, told("was rolled back, and read"));
                }
                if at + 1 == list.len() && !own && !writer.last {
                    findings.add(
                        Kind::IntermediateRead,
                        told("is not its transaction's last, and was read as newest"),
                    );
                }
            }
            if committed && !self.order(key).starts_with(list) {
                let story = [format!("key {key} was also read as {:?}", self.order(key)), self.tell(reader)];
                findings.add(Kind::IncompatibleOrder, story);
            }
        }
    }

    /// A value that was rolled back, with a committed one after it.
    fn dirty_updates(&self, findings: &mut Findings) {
        for (key, order) in &self.orders {
            let writers =
                || order.iter().filter_map(move |value| Some((value, self.writers.get(&(*key, *value))?)));
            let Some(dirty) = writers().position(|(_, writer)| self.rolled_back(writer)) else { continue };
            let after = writers().skip(dirty).find(|(_, writer)| !self.rolled_back(writer));
            if let (Some((value, bad)), Some((on_top, good))) = (writers().nth(dirty), after) {
                let what =
                    format!("key {key}: {value} was rolled back, and {on_top} was written on top of it");
                findings
                    .add(Kind::DirtyUpdate, [what, self.tell(bad.transaction), self.tell(good.transaction)]);
            }
        }
    }

    /// Acknowledged writes, or companions of one that was seen, that are in no list, though somebody who began later
    /// read the key.
    fn lost_writes(&self, findings: &mut Findings) {
        let mut latest: HashMap<Key, usize> = HashMap::new();
        let committed = |one: &Transaction| matches!(one.outcome, Outcome::Committed(_));
        for (number, transaction) in self.history.iter().enumerate().filter(|(_, one)| committed(one)) {
            for (key, _) in reads(transaction) {
                let known = latest.entry(key).or_insert(number);
                if self.history[*known].begun < transaction.begun {
                    *known = number;
                }
            }
        }
        let in_order: HashSet<(Key, Value)> =
            self.orders.iter().flat_map(|(key, order)| order.iter().map(|value| (*key, *value))).collect();
        let seen_at = self.unknown_seen_at();
        for (number, transaction) in self.history.iter().enumerate() {
            let end = match transaction.outcome {
                Outcome::Committed(end) => end,
                Outcome::Aborted => continue,
                Outcome::Unknown => match seen_at.get(&number) {
                    Some(end) => *end,
                    None => continue,
                },
            };
            for (key, value, undone) in transaction.writes() {
                let Some(reader) = latest.get(&key).filter(|_| !undone && !in_order.contains(&(key, value)))
                else {
                    continue;
                };
                if self.history[*reader].begun > end {
                    let what =
                        format!("key {key}: {value} was there for good by {end}, and later it was not");
                    findings.add(Kind::LostWrite, [what, self.tell(number), self.tell(*reader)]);
                }
            }
        }
    }

    /// Of each transaction whose COMMIT had no answer: when the first one had ended that saw any of its writes. From
    /// then on all of them must be there.
    fn unknown_seen_at(&self) -> HashMap<usize, Tick> {
        let mut seen_at = HashMap::new();
        if self.history.iter().all(|one| one.outcome != Outcome::Unknown) {
            return seen_at;
        }
        for transaction in self.history {
            let Outcome::Committed(end) = transaction.outcome else { continue };
            for (key, list) in reads(transaction) {
                let writers = list.iter().filter_map(|value| self.writers.get(&(key, *value)));
                for writer in writers.filter(|one| self.history[one.transaction].outcome == Outcome::Unknown)
                {
                    let known = seen_at.entry(writer.transaction).or_insert(end);
                    *known = end.min(*known);
                }
            }
        }
        seen_at
    }
}

/// Every list that a transaction saw.
pub fn reads(transaction: &Transaction) -> impl Iterator<Item = (Key, &Vec<Value>)> {
    let seen = transaction.ops.iter().filter_map(|op| match op {
        Op::Read { seen, .. } => Some(seen),
        Op::Write { .. } | Op::Undone { .. } => None,
    });
    seen.flatten().map(|(key, list)| (*key, list))
}

/// What a transaction knows of a key.
#[derive(Default)]
struct Known {
    /// As it was last read.
    seen: Option<Vec<Value>>,
    /// What the transaction appended since.
    wrote: Vec<Value>,
    /// It holds the row's lock.
    locked: bool,
}

impl Known {
    /// Whether `list` can be what it reads now.
    fn explains(&self, list: &[Value], level: Level) -> bool {
        let seen = self.seen.as_deref().unwrap_or_default();
        let nothing_between = self.seen.is_some() && (self.locked || level == Level::RepeatableRead);
        let length = seen.len() + self.wrote.len();
        list.starts_with(seen)
            && list.ends_with(&self.wrote)
            && if nothing_between { list.len() == length } else { list.len() >= length }
    }
}

/// Does a transaction see its own writes, and the same thing twice? At READ COMMITTED others may write between two of
/// its statements, but not to a row that it has locked, and lists never shrink.
fn internal(transaction: &Transaction, level: Level, findings: &mut Findings) {
    let mut keys: HashMap<Key, Known> = HashMap::new();
    for op in &transaction.ops {
        match op {
            Op::Undone { .. } => {}
            Op::Write { key, value } => keys.entry(*key).or_default().wrote.push(*value),
            Op::Read { seen, locked } => {
                for (key, list) in seen {
                    let known = keys.entry(*key).or_default();
                    if !known.explains(list, level) {
                        let before =
                            known.seen.as_ref().map_or("nothing".to_owned(), |seen| format!("{seen:?}"));
                        let what = format!(
                            "key {key}: read as {before}, then wrote {:?}, then read as {list:?}",
                            known.wrote
                        );
                        findings.add(Kind::Internal, [what, transaction.to_string()]);
                    }
                    known.locked |= !known.wrote.is_empty() || *locked && !list.is_empty();
                    known.seen = Some(list.clone());
                    known.wrote.clear();
                }
            }
        }
    }
}

/// Looks for cycles, those of fewer kinds of edges first, so that each is told by its gravest name.
fn cycles(dependencies: &Dependencies, lists: &Lists, findings: &mut Findings) {
    let order = |why: &Why| matches!(why, Why::WriteWrite { .. } | Why::Program | Why::RealTime);
    let flow = |why: &Why| !matches!(why, Why::ReadWrite { .. });
    let graph: &Graph = &dependencies.graph;
    for (cycle, kinds) in [
        (graph.cycle(order, false), &[Kind::DirtyWrite][..]),
        (graph.cycle(flow, false), &[Kind::CircularFlow][..]),
        (graph.cycle(flow, true), &[Kind::LostUpdate, Kind::ReadSkew, Kind::NonAdjacent][..]),
    ] {
        let Some(cycle) = cycle else { continue };
        let kind = kind(&cycle);
        if kinds.contains(&kind) {
            findings.add(kind, story(&cycle, dependencies, lists));
        }
    }
}

fn kind(cycle: &[Step]) -> Kind {
    let anti = cycle.iter().filter(|(_, edge)| matches!(edge.why, Why::ReadWrite { .. })).count();
    let flow = cycle.iter().any(|(_, edge)| matches!(edge.why, Why::WriteRead { .. } | Why::Locked { .. }));
    match anti {
        0 if flow => Kind::CircularFlow,
        0 => Kind::DirtyWrite,
        1 if is_lost_update(cycle) => Kind::LostUpdate,
        1 => Kind::ReadSkew,
        _ => Kind::NonAdjacent,
    }
}

/// One of two did not see the other's write of a key, and wrote the key after it.
fn is_lost_update(cycle: &[Step]) -> bool {
    let unseen = cycle.iter().find_map(|(_, edge)| match edge.why {
        Why::ReadWrite { key, .. } => Some(key),
        _ => None,
    });
    let written = cycle.iter().find_map(|(_, edge)| match edge.why {
        Why::WriteWrite { key, .. } => Some(key),
        _ => None,
    });
    cycle.len() == 2 && unseen == written
}

fn story(cycle: &[Step], dependencies: &Dependencies, lists: &Lists) -> Vec<String> {
    let name = |node: usize| match dependencies.nodes[node] {
        (transaction, Part::Whole) => format!("T{transaction}"),
        (transaction, Part::Read(at)) => format!("T{transaction}'s read (operation {})", at + 1),
    };
    let mut lines: Vec<String> = cycle
        .iter()
        .map(|(from, edge)| {
            let (from, to) = (name(*from), name(edge.to));
            let why = match edge.why {
                Why::WriteWrite { key, before, after } => {
                    format!("its {before} stands before {to}'s {after} in key {key}")
                }
                Why::WriteRead { key, value } => format!("its {value} in key {key} was read by {to}"),
                Why::ReadWrite { key, value } => format!("it read key {key} before {to} wrote {value}"),
                Why::Locked { key, value } => format!("it had locked key {key}, where {to} wrote {value}"),
                Why::Program => format!("{to} came later in the same transaction"),
                Why::RealTime => format!("it had ended before {to} began"),
            };
            format!("{from} before {to}: {why}")
        })
        .collect();
    let mut told = HashSet::new();
    for (node, _) in cycle {
        let (transaction, _) = dependencies.nodes[*node];
        if told.insert(transaction) {
            lines.push(lists.tell(transaction));
        }
    }
    lines
}
