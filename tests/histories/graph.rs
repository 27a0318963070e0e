//! Who came before whom, and the shortest way to show that it cannot be.

use std::collections::{HashMap, VecDeque};

use super::history::{Key, Value};

/// Why one came before the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its value stands before the other's.
    WriteWrite { key: Key, before: Value, after: Value },
    /// The other read its value, as the newest.
    WriteRead { key: Key, value: Value },
    /// It did not see the other's value, the next one: an anti-dependency.
    ReadWrite { key: Key, value: Value },
    /// It had locked the row that the other then wrote.
    Locked { key: Key, value: Value },
    /// Both are of one client's transaction.
    Program,
    /// Its end was acknowledged before the other began.
    RealTime,
}

#[derive(Clone, Copy, Debug)]
pub struct Edge {
    pub to: usize,
    pub why: Why,
}

/// Nodes are numbers from 0.
pub struct Graph {
    edges: Vec<Vec<Edge>>,
}

/// A node, and its edge to the next one of a cycle; the last one's leads to the first.
pub type Step = (usize, Edge);

/// An edge, or an anti-dependency and an edge that is none.
#[derive(Clone, Copy)]
struct Hop {
    to: usize,
    first: Edge,
    second: Option<Edge>,
}

/// From how many nodes the shortest cycle is looked for. Only a history with anomalies comes so far.
const STARTS: usize = 300;

impl Graph {
    pub fn new(nodes: usize) -> Graph {
        Graph { edges: (0..nodes).map(|_| Vec::new()).collect() }
    }

    pub fn add(&mut self, from: usize, to: usize, why: Why) {
        if from != to && !self.edges[from].iter().any(|edge| edge.to == to && edge.why == why) {
            self.edges[from].push(Edge { to, why });
        }
    }

    pub fn count(&self, of: impl Fn(&Why) -> bool) -> usize {
        self.edges.iter().flatten().filter(|edge| of(&edge.why)).count()
    }

    /// A shortest cycle of edges that are `allowed`; with `anti`, also through anti-dependencies, of which no two
    /// follow each other. Two in a row is what snapshots permit (Fekete et al., "Making Snapshot Isolation
    /// Serializable", 2005), and everything else they do not.
    pub fn cycle(&self, allowed: impl Fn(&Why) -> bool, anti: bool) -> Option<Vec<Step>> {
        let hops: Vec<Vec<Hop>> = (0..self.edges.len()).map(|node| self.hops(node, &allowed, anti)).collect();
        let mut alive = vec![true; hops.len()];
        let forward: Vec<Vec<usize>> =
            hops.iter().map(|hops| hops.iter().map(|hop| hop.to).collect()).collect();
        peel(&forward, &mut alive);
        peel(&reverse(&forward), &mut alive);
        let starts = (0..hops.len()).filter(|node| alive[*node]).take(STARTS);
        let cycles = starts.filter_map(|start| shortest_from(start, &hops, &alive));
        cycles.map(flatten).min_by_key(Vec::len)
    }

    fn hops(&self, node: usize, allowed: &impl Fn(&Why) -> bool, anti: bool) -> Vec<Hop> {
        let mut hops = Vec::new();
        for first in &self.edges[node] {
            if allowed(&first.why) {
                hops.push(Hop { to: first.to, first: *first, second: None });
            } else if anti && matches!(first.why, Why::ReadWrite { .. }) {
                let seconds = self.edges[first.to].iter().filter(|second| allowed(&second.why));
                hops.extend(seconds.map(|second| Hop {
                    to: second.to,
                    first: *first,
                    second: Some(*second),
                }));
            }
        }
        hops
    }
}

fn flatten(hops: Vec<(usize, Hop)>) -> Vec<Step> {
    let mut cycle = Vec::new();
    for (node, hop) in hops {
        cycle.push((node, hop.first));
        if let Some(second) = hop.second {
            cycle.push((hop.first.to, second));
        }
    }
    cycle
}

fn reverse(forward: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut backward = vec![Vec::new(); forward.len()];
    for (from, next) in forward.iter().enumerate() {
        for to in next {
            backward[*to].push(from);
        }
    }
    backward
}

/// Takes away, again and again, what nothing that is left leads to: it is on no cycle.
fn peel(next: &[Vec<usize>], alive: &mut [bool]) {
    let mut incoming = vec![0_usize; next.len()];
    for from in (0..next.len()).filter(|node| alive[*node]) {
        next[from].iter().for_each(|to| incoming[*to] += 1);
    }
    let mut bare: Vec<usize> = (0..next.len()).filter(|node| alive[*node] && incoming[*node] == 0).collect();
    while let Some(node) = bare.pop() {
        alive[node] = false;
        for to in &next[node] {
            incoming[*to] -= 1;
            if incoming[*to] == 0 && alive[*to] {
                bare.push(*to);
            }
        }
    }
}

/// Breadth first, until the way leads back.
fn shortest_from(start: usize, hops: &[Vec<Hop>], alive: &[bool]) -> Option<Vec<(usize, Hop)>> {
    let mut came: HashMap<usize, (usize, Hop)> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for hop in &hops[at] {
            if hop.to == start {
                let mut way = vec![(at, *hop)];
                let mut node = at;
                while node != start {
                    let step = came[&node];
                    way.push(step);
                    node = step.0;
                }
                way.reverse();
                return Some(way);
            }
            if alive[hop.to] && !came.contains_key(&hop.to) {
                came.insert(hop.to, (at, *hop));
                queue.push_back(hop.to);
            }
        }
    }
    None
}
