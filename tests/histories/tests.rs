//! Histories made by hand: each anomaly is found in one that has it, and by its own name; those without pass.

use super::{
    anomaly::{Findings, Kind},
    check::check,
    history::{Key, Level, Op, Outcome, Tick, Transaction, Value},
    registers::{Register, as_lists},
};

use Level::{ReadCommitted, RepeatableRead};

fn write<S>(key: Key, value: Value) -> Op<S> {
    Op::Write { key, value }
}

fn read(key: Key, list: &[Value]) -> Op {
    Op::Read { seen: vec![(key, list.to_vec())], locked: false }
}

fn lock(key: Key, list: &[Value]) -> Op {
    Op::Read { seen: vec![(key, list.to_vec())], locked: true }
}

fn both(first: (Key, &[Value]), second: (Key, &[Value])) -> Op {
    Op::Read { seen: vec![(first.0, first.1.to_vec()), (second.0, second.1.to_vec())], locked: false }
}

/// Committed, from one moment to another.
fn ok<S, const N: usize>(begun: Tick, end: Tick, ops: [Op<S>; N]) -> Transaction<S> {
    Transaction { client: 0, begun, outcome: Outcome::Committed(end), ops: ops.into() }
}

fn with<S, const N: usize>(outcome: Outcome, begun: Tick, ops: [Op<S>; N]) -> Transaction<S> {
    Transaction { client: 0, begun, outcome, ops: ops.into() }
}

/// The kinds that were found, each once.
fn kinds(level: Level, history: &[Transaction]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = check(history, level).anomalies.iter().map(|anomaly| anomaly.kind).collect();
    kinds.dedup();
    kinds
}

/// Found at this level, and told with words.
fn finds(level: Level, kind: Kind, history: &[Transaction]) {
    let verdict = check(history, level);
    let told: String = verdict.anomalies.iter().map(ToString::to_string).collect();
    assert!(
        verdict.anomalies.iter().any(|anomaly| anomaly.kind == kind),
        "no {kind:?} at {level:?}:\n{told}"
    );
    assert!(verdict.anomalies.iter().all(|anomaly| anomaly.story.len() > 1), "{told}");
}

fn passes(level: Level, history: &[Transaction]) {
    let told: String = check(history, level).anomalies.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{level:?}:\n{told}");
}

#[test]
fn what_is_serial_passes() {
    let history = [
        ok(0, 1, [read(1, &[]), write(1, 10), read(1, &[10]), write(2, 20)]),
        ok(2, 3, [both((1, &[10]), (2, &[20])), write(1, 11)]),
        with(Outcome::Aborted, 4, [write(1, 12), read(1, &[10, 11, 12])]),
        with(Outcome::Unknown, 5, [write(2, 21)]),
        with(Outcome::Unknown, 6, [write(2, 22)]),
        ok(7, 8, [Op::Undone { key: 1, value: 13 }, write(1, 14), read(1, &[10, 11, 14])]),
        ok(9, 10, [read(1, &[10, 11, 14]), read(2, &[20, 22])]),
    ];
    passes(ReadCommitted, &history);
    passes(RepeatableRead, &history);
}

#[test]
fn write_skew_passes() {
    let history = [
        ok(0, 10, [both((1, &[]), (2, &[])), write(1, 10)]),
        ok(1, 11, [both((1, &[]), (2, &[])), write(2, 20)]),
        ok(12, 13, [both((1, &[10]), (2, &[20]))]),
    ];
    passes(ReadCommitted, &history);
    passes(RepeatableRead, &history);
}

#[test]
fn values_from_nowhere() {
    for level in [ReadCommitted, RepeatableRead] {
        finds(level, Kind::GarbageRead, &[ok(0, 1, [read(1, &[99])])]);
        finds(level, Kind::DuplicateElement, &[ok(0, 1, [write(1, 10)]), ok(2, 3, [read(1, &[10, 10])])]);
        let forked = [
            ok(0, 10, [write(1, 10)]),
            ok(1, 11, [write(1, 11)]),
            ok(2, 12, [read(1, &[10, 11])]),
            ok(3, 13, [read(1, &[11])]),
        ];
        finds(level, Kind::IncompatibleOrder, &forked);
    }
}

#[test]
fn what_was_rolled_back() {
    for level in [ReadCommitted, RepeatableRead] {
        let aborted = with(Outcome::Aborted, 0, [write(1, 10)]);
        finds(level, Kind::AbortedRead, &[aborted.clone(), ok(1, 2, [read(1, &[10])])]);
        let undone = ok(0, 5, [Op::Undone { key: 1, value: 10 }]);
        finds(level, Kind::AbortedRead, &[undone.clone(), ok(1, 2, [read(1, &[10])])]);
        let own = ok(0, 5, [Op::Undone { key: 1, value: 10 }, read(1, &[10])]);
        finds(level, Kind::AbortedRead, &[own]);
        let on_top = [aborted, ok(1, 2, [write(1, 11)]), ok(3, 4, [read(1, &[10, 11])])];
        finds(level, Kind::DirtyUpdate, &on_top);
        let reader = with(Outcome::Aborted, 1, [read(1, &[10])]);
        finds(level, Kind::AbortedRead, &[undone, reader]);
    }
}

#[test]
fn what_was_not_yet_done() {
    let history = [
        ok(0, 10, [write(1, 10), write(1, 11)]),
        ok(1, 2, [read(1, &[10])]),
        ok(11, 12, [read(1, &[10, 11])]),
    ];
    finds(ReadCommitted, Kind::IntermediateRead, &history);
    finds(RepeatableRead, Kind::IntermediateRead, &history);
}

#[test]
fn a_transaction_against_itself() {
    for level in [ReadCommitted, RepeatableRead] {
        finds(level, Kind::Internal, &[ok(0, 1, [write(1, 10), read(1, &[])])]);
        let shrinks = [ok(0, 1, [write(1, 10)]), ok(2, 3, [read(1, &[10]), read(1, &[])])];
        finds(level, Kind::Internal, &shrinks);
        // It has the row's lock: nobody else's 11 can come.
        let through_lock = [
            ok(0, 9, [lock(1, &[10]), read(1, &[10, 11])]),
            ok(1, 2, [write(1, 11)]),
            ok(3, 4, [read(1, &[10, 11])]),
        ];
        let base = ok(10, 11, [write(1, 10)]);
        let history: Vec<Transaction> = through_lock.into_iter().chain([base]).collect();
        finds(level, Kind::Internal, &history);
    }
    let grows = [
        ok(0, 1, [write(1, 10)]),
        ok(2, 9, [read(1, &[10]), read(1, &[10, 11])]),
        ok(3, 4, [write(1, 11), read(1, &[10, 11])]),
    ];
    passes(ReadCommitted, &grows);
    finds(RepeatableRead, Kind::Internal, &grows);
}

#[test]
fn acknowledged_and_gone() {
    for level in [ReadCommitted, RepeatableRead] {
        finds(level, Kind::LostWrite, &[ok(0, 1, [write(1, 10)]), ok(2, 3, [read(1, &[])])]);
        // Of a commit without an answer, all was seen, or nothing.
        let torn = [
            with(Outcome::Unknown, 0, [write(1, 10), write(2, 20)]),
            ok(1, 2, [read(1, &[10])]),
            ok(3, 4, [both((1, &[10]), (2, &[]))]),
        ];
        finds(level, Kind::LostWrite, &torn);
        // Here it is there, but a later transaction does not see it.
        let stale = [ok(0, 1, [write(1, 10)]), ok(2, 9, [read(1, &[])]), ok(3, 4, [read(1, &[10])])];
        finds(level, Kind::ReadSkew, &stale);
    }
    passes(RepeatableRead, &[ok(0, 5, [write(1, 10)]), ok(2, 3, [read(1, &[])])]);
}

#[test]
fn cycles_of_writes_and_reads() {
    for level in [ReadCommitted, RepeatableRead] {
        let dirty_write = [
            ok(0, 10, [write(1, 10), write(2, 20)]),
            ok(1, 11, [write(1, 11), write(2, 21)]),
            ok(12, 13, [both((1, &[10, 11]), (2, &[21, 20]))]),
        ];
        finds(level, Kind::DirtyWrite, &dirty_write);
        let circular = [ok(0, 10, [write(1, 10), read(2, &[20])]), ok(1, 11, [write(2, 20), read(1, &[10])])];
        finds(level, Kind::CircularFlow, &circular);
    }
}

#[test]
fn cycles_with_one_anti_dependency() {
    let skew = [
        ok(0, 10, [read(1, &[]), read(2, &[20])]),
        ok(1, 9, [write(1, 10), write(2, 20)]),
        ok(11, 12, [both((1, &[10]), (2, &[20]))]),
    ];
    passes(ReadCommitted, &skew);
    assert_eq!(kinds(RepeatableRead, &skew), [Kind::ReadSkew]);
    let lost_update = [
        ok(0, 10, [read(1, &[]), write(1, 10)]),
        ok(1, 11, [read(1, &[]), write(1, 11)]),
        ok(12, 13, [read(1, &[10, 11])]),
    ];
    passes(ReadCommitted, &lost_update);
    assert_eq!(kinds(RepeatableRead, &lost_update), [Kind::LostUpdate]);
}

#[test]
fn a_statement_at_read_committed_is_a_snapshot() {
    let torn = [
        ok(0, 10, [both((1, &[]), (2, &[20]))]),
        ok(1, 9, [write(1, 10), write(2, 20)]),
        ok(11, 12, [both((1, &[10]), (2, &[20]))]),
    ];
    assert_eq!(kinds(ReadCommitted, &torn), [Kind::ReadSkew]);
    // The second statement is older than the first.
    let backwards = [
        ok(0, 10, [read(2, &[20]), read(1, &[])]),
        ok(1, 9, [write(1, 10), write(2, 20)]),
        ok(11, 12, [both((1, &[10]), (2, &[20]))]),
    ];
    assert_eq!(kinds(ReadCommitted, &backwards), [Kind::ReadSkew]);
}

#[test]
fn a_row_locked_by_a_read_stays() {
    let history = [
        ok(0, 1, [write(1, 10)]),
        ok(2, 10, [lock(1, &[10]), write(2, 21)]),
        ok(3, 9, [write(1, 11), write(2, 20)]),
        ok(11, 12, [both((1, &[10, 11]), (2, &[20, 21]))]),
    ];
    finds(ReadCommitted, Kind::CircularFlow, &history);
}

#[test]
fn a_long_fork() {
    let history = [
        ok(0, 10, [write(1, 10)]),
        ok(1, 11, [write(2, 20)]),
        ok(2, 12, [both((1, &[10]), (2, &[]))]),
        ok(3, 13, [both((1, &[]), (2, &[20]))]),
        ok(14, 15, [both((1, &[10]), (2, &[20]))]),
    ];
    assert_eq!(kinds(RepeatableRead, &history), [Kind::NonAdjacent]);
    assert_eq!(kinds(ReadCommitted, &history), [Kind::NonAdjacent]);
}

fn see(key: Key, register: Register) -> Op<Register> {
    Op::Read { seen: vec![(key, register)], locked: false }
}

fn register_kinds(level: Level, history: &[Transaction<Register>]) -> Vec<Kind> {
    let mut findings = Findings::default();
    let mut kinds = kinds(level, &as_lists(history, &mut findings));
    kinds.extend(findings.into_vec().iter().map(|anomaly| anomaly.kind));
    kinds
}

#[test]
fn registers_are_lists_of_their_versions() {
    let good = [
        ok(0, 1, [see(1, None), write(1, 10), see(1, Some((10, 1)))]),
        // Its versions 2 and 3 were written again by others.
        with(Outcome::Aborted, 2, [write(1, 11), see(1, Some((11, 2))), write(1, 12), see(1, Some((12, 3)))]),
        ok(3, 4, [see(1, Some((10, 1))), write(1, 13), see(1, Some((13, 2)))]),
        ok(5, 6, [write(1, 14), see(1, Some((14, 3)))]),
        ok(7, 8, [see(1, Some((14, 3)))]),
    ];
    for level in [ReadCommitted, RepeatableRead] {
        assert!(register_kinds(level, &good).is_empty(), "{:?}", register_kinds(level, &good));
        let twice = [
            ok(0, 10, [write(1, 10), see(1, Some((10, 1)))]),
            ok(1, 11, [write(1, 11), see(1, Some((11, 1)))]),
        ];
        assert!(register_kinds(level, &twice).contains(&Kind::LostUpdate));
        let aborted = [
            with(Outcome::Aborted, 0, [write(1, 10), see(1, Some((10, 1)))]),
            ok(1, 2, [see(1, Some((10, 1)))]),
            ok(3, 4, [write(1, 11), see(1, Some((11, 1)))]),
        ];
        assert!(register_kinds(level, &aborted).contains(&Kind::AbortedRead));
        let stale = [
            ok(0, 1, [write(1, 10), see(1, Some((10, 1)))]),
            ok(2, 3, [write(1, 11), see(1, Some((11, 2)))]),
            ok(4, 5, [see(1, Some((10, 1)))]),
        ];
        assert_eq!(register_kinds(level, &stale), [Kind::ReadSkew]);
    }
}
