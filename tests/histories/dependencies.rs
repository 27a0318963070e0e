//! From lists to a graph: who came before whom.

use super::{
    check::{Lists, Writer},
    graph::{Graph, Why},
    history::{Key, Level, Op, Outcome, Value},
};

/// Which part of a transaction a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// The operation with this number, at READ COMMITTED.
    Read(usize),
}

pub struct Dependencies {
    pub graph: Graph,
    /// The transaction of each node, and which part of it.
    pub nodes: Vec<(usize, Part)>,
}

/// The nodes of one transaction.
struct Home {
    whole: usize,
    /// Its statements that read, with the operation's number; the whole itself at REPEATABLE READ.
    reads: Vec<(usize, usize)>,
    /// The first to run.
    first: usize,
}

impl Dependencies {
    pub fn of(lists: &Lists, level: Level) -> Dependencies {
        let mut nodes = Vec::new();
        let homes: Vec<Option<Home>> = (0..lists.history.len())
            .map(|number| lists.took_effect(number).then(|| home(lists, number, level, &mut nodes)))
            .collect();
        let mut built = Builder { graph: Graph::new(nodes.len()), lists, homes };
        built.program();
        built.write_write();
        for number in 0..lists.history.len() {
            built.reads(number, level);
        }
        built.real_time();
        Dependencies { graph: built.graph, nodes }
    }
}

fn home(lists: &Lists, number: usize, level: Level, nodes: &mut Vec<(usize, Part)>) -> Home {
    let whole = nodes.len();
    nodes.push((number, Part::Whole));
    let mut home = Home { whole, reads: Vec::new(), first: whole };
    for (at, op) in lists.history[number].ops.iter().enumerate() {
        let Op::Read { seen, .. } = op else { continue };
        // What a write returns ends with the transaction's own value and says nothing of a snapshot.
        if seen.iter().all(|(key, list)| is_own(lists, number, *key, list)) {
            continue;
        }
        let node = match level {
            Level::RepeatableRead => whole,
            Level::ReadCommitted => {
                nodes.push((number, Part::Read(at)));
                nodes.len() - 1
            }
        };
        if home.reads.is_empty() {
            home.first = node;
        }
        home.reads.push((at, node));
    }
    home
}

/// Whether the newest value of the list is the transaction's own.
fn is_own(lists: &Lists, number: usize, key: Key, list: &[Value]) -> bool {
    let writer = list.last().and_then(|value| lists.writers.get(&(key, *value)));
    writer.is_some_and(|writer| writer.transaction == number)
}

struct Builder<'a> {
    graph: Graph,
    lists: &'a Lists<'a>,
    homes: Vec<Option<Home>>,
}

impl Builder<'_> {
    /// The node of who wrote this, if it took effect.
    fn writer(&self, key: Key, value: Value) -> Option<(Writer, usize)> {
        let writer = *self.lists.writers.get(&(key, value))?;
        let home = self.homes[writer.transaction].as_ref()?;
        Some((writer, home.whole))
    }

    /// A transaction's statements came one after the other, and before its end.
    fn program(&mut self) {
        for home in self.homes.iter().flatten() {
            let nodes = home.reads.iter().map(|(_, node)| *node).chain([home.whole]);
            for (from, to) in nodes.clone().zip(nodes.skip(1)) {
                self.graph.add(from, to, Why::Program);
            }
        }
    }

    fn write_write(&mut self) {
        for (key, order) in &self.lists.orders {
            let mut previous: Option<(Value, usize)> = None;
            for value in order {
                let Some((_, node)) = self.writer(*key, *value) else { continue };
                if let Some((before, from)) = previous {
                    self.graph.add(from, node, Why::WriteWrite { key: *key, before, after: *value });
                }
                previous = Some((*value, node));
            }
        }
    }

    fn reads(&mut self, number: usize, level: Level) {
        let Some(home) = &self.homes[number] else { return };
        let (whole, statements) = (home.whole, home.reads.clone());
        for (at, node) in statements {
            let Op::Read { seen, locked } = &self.lists.history[number].ops[at] else { continue };
            for (key, list) in seen {
                if is_own(self.lists, number, *key, list) || !self.lists.order(*key).starts_with(list) {
                    continue;
                }
                if let Some((value, (_, from))) =
                    list.last().and_then(|value| Some((*value, self.writer(*key, *value)?)))
                {
                    self.graph.add(from, node, Why::WriteRead { key: *key, value });
                }
                let Some((value, next)) = self.next(*key, list.len()) else { continue };
                if next == whole {
                    continue;
                }
                self.graph.add(node, next, Why::ReadWrite { key: *key, value });
                // At REPEATABLE READ the one who waited for the lock may have an older snapshot.
                if *locked && !list.is_empty() && level == Level::ReadCommitted {
                    self.graph.add(whole, next, Why::Locked { key: *key, value });
                }
            }
        }
    }

    /// The first write that took effect from this place on in the order of a key.
    fn next(&self, key: Key, from: usize) -> Option<(Value, usize)> {
        let after = &self.lists.order(key)[from..];
        after.iter().find_map(|value| Some((*value, self.writer(key, *value)?.1)))
    }

    /// What was acknowledged came before what began then. Only edges that no others imply: from those that ended
    /// most lately, as Jepsen does it.
    fn real_time(&mut self) {
        enum Event {
            Begun(usize),
            Ended(usize),
        }
        let mut events = Vec::new();
        for (number, transaction) in self.lists.history.iter().enumerate() {
            if self.homes[number].is_none() {
                continue;
            }
            events.push((transaction.begun, Event::Begun(number)));
            if let Outcome::Committed(end) = transaction.outcome {
                events.push((end, Event::Ended(number)));
            }
        }
        events.sort_by_key(|(tick, _)| *tick);
        // Those that have ended, without those that ended before one of the others began.
        let mut latest: Vec<usize> = Vec::new();
        let mut before: Vec<Vec<usize>> = self.lists.history.iter().map(|_| Vec::new()).collect();
        for (_, event) in events {
            match event {
                Event::Begun(number) => before[number].clone_from(&latest),
                Event::Ended(number) => {
                    latest.retain(|other| !before[number].contains(other));
                    latest.push(number);
                }
            }
        }
        for (number, before) in before.iter().enumerate() {
            let Some(to) = self.homes[number].as_ref().map(|home| home.first) else { continue };
            for other in before {
                if let Some(from) = &self.homes[*other] {
                    self.graph.add(from.whole, to, Why::RealTime);
                }
            }
        }
    }
}
