//! The lock table by itself: what excludes what, who goes first, and which circles are found.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};

use super::{modes::ROW_MODES, *};

const T: TableId = TableId(20_000);
const U: TableId = TableId(20_001);
const PATROL: Duration = Duration::from_secs(3600);

struct Party {
    _session: SessionLocks,
    locks: TransactionLocks,
}

fn parties<const N: usize>(table: &Arc<LockTable>) -> [Party; N] {
    std::array::from_fn(|number| {
        let session = table.enlist(i32::try_from(number).unwrap() + 1);
        let locks = session.begin();
        Party { _session: session, locks }
    })
}

fn rows(table: TableId, mode: RowMode, ids: &[u64]) -> Want {
    Want::Rows { table, mode, rows: ids.iter().copied().collect(), write: false }
}

fn written(ids: &[u64]) -> Want {
    Want::Rows { table: T, mode: RowMode::NoKeyUpdate, rows: ids.iter().copied().collect(), write: true }
}

fn table(mode: TableMode) -> Want {
    Want::Table { table: T, mode }
}

fn number(object: u32, shared: bool, span: Span) -> Want {
    let key = AdvisoryKey { environment: Arc::from("default"), class: 0, object, kind: 1 };
    Want::Advisory { key, shared, span }
}

impl Party {
    fn gets(&self, want: Want) {
        let asked = self.locks.ask(want.clone(), true).unwrap();
        assert!(matches!(asked, Asked::Granted), "{want:?}: {asked:?}");
    }

    fn is_refused(&self, want: Want) {
        let asked = self.locks.ask(want.clone(), false).unwrap();
        assert!(matches!(asked, Asked::Refused(_)), "{want:?}: {asked:?}");
    }

    fn waits(&self, want: Want) -> BoxFuture<'static, Result<()>> {
        match self.locks.ask(want.clone(), true).unwrap() {
            Asked::Waits(waiting) => waiting.granted(PATROL).boxed(),
            other => panic!("{want:?}: {other:?}"),
        }
    }

    fn deadlocks(&self, want: Want) -> String {
        let error = self.locks.ask(want, true).unwrap_err();
        assert_eq!(error.state().code(), "40P01");
        error.detail().unwrap_or_default().to_owned()
    }
}

/// Whether a wait is over. Polls it once; the runtime of the test is for the patrol's timer.
fn done(wait: &mut BoxFuture<'static, Result<()>>) -> bool {
    wait.now_or_never().is_some_and(|ended| {
        ended.unwrap();
        true
    })
}

#[test]
fn table_modes_exclude_each_other_as_in_postgres() {
    // From the manual: a row per requested mode, a column per held one, in the order of `ALL`.
    let manual =
        ["-------x", "------xx", "----xxxx", "---xxxxx", "--xx-xxx", "--xxxxxx", "-xxxxxxx", "xxxxxxxx"];
    for (asked, line) in TableMode::ALL.into_iter().zip(manual) {
        for (held, cell) in TableMode::ALL.into_iter().zip(line.chars()) {
            let locks = Arc::<LockTable>::default();
            let [one, other] = parties(&locks);
            one.gets(table(held));
            if cell == 'x' {
                other.is_refused(table(asked));
                // One's own locks are in nobody's way but others'.
                one.gets(table(asked));
            } else {
                other.gets(table(asked));
            }
        }
    }
}

#[test]
fn row_modes_exclude_each_other_as_in_postgres() {
    let manual = ["---x", "--xx", "-xxx", "xxxx"];
    for (asked, line) in ROW_MODES.into_iter().zip(manual) {
        for (held, cell) in ROW_MODES.into_iter().zip(line.chars()) {
            let locks = Arc::<LockTable>::default();
            let [one, other] = parties(&locks);
            one.gets(rows(T, held, &[1, 2]));
            other.gets(rows(T, asked, &[3]));
            other.gets(rows(U, asked, &[1]));
            if cell == 'x' {
                other.is_refused(rows(T, asked, &[2, 4]));
                // What was free of it is the other's now.
                assert!(locks.0.lock().held.taken_rows(u64::MAX, T, RowMode::Update).contains(4));
            } else {
                other.gets(rows(T, asked, &[2, 4]));
            }
        }
    }
}

#[tokio::test]
async fn a_wait_ends_with_the_transaction_that_was_in_the_way() {
    let locks = Arc::<LockTable>::default();
    let [one, other] = parties(&locks);
    one.gets(rows(T, RowMode::Update, &[1, 2, 3]));
    let mut wait = other.waits(rows(T, RowMode::Update, &[3, 4]));
    assert!(!done(&mut wait));
    assert_eq!(locks.blocking(2), [1]);
    assert_eq!(locks.rows().iter().filter(|row| !row.granted).count(), 1);
    drop(one);
    assert!(done(&mut wait));
    drop((other, wait));
    assert!(locks.0.lock().held.is_empty());
}

#[tokio::test]
async fn nobody_is_overtaken_but_by_one_who_is_waited_for() {
    let locks = Arc::<LockTable>::default();
    let [reader, writer, late] = parties(&locks);
    reader.gets(rows(T, RowMode::Share, &[1]));
    let mut writing = writer.waits(rows(T, RowMode::Update, &[1]));
    // It could share the row, but comes after the writer.
    let mut reading = late.waits(rows(T, RowMode::Share, &[1]));
    assert!(done(&mut reader.waits(rows(T, RowMode::NoKeyUpdate, &[1]))), "both wait for it: it goes ahead");
    drop(reader);
    assert!(done(&mut writing));
    assert!(!done(&mut reading));
    drop((writer, writing));
    assert!(done(&mut reading));
}

#[tokio::test]
async fn who_waits_for_a_row_goes_on_when_it_is_free_and_in_the_order_of_the_line() {
    let locks = Arc::<LockTable>::default();
    let [one, other, first, second, third, both] = parties(&locks);
    one.gets(written(&[1, 2]));
    let mark = one.locks.savepoint();
    one.gets(written(&[3]));
    other.gets(rows(T, RowMode::Update, &[4]));
    let mut waits = [
        first.waits(rows(T, RowMode::Update, &[1])),
        second.waits(rows(T, RowMode::Update, &[1])),
        third.waits(Want::Unwritten { table: T, rows: [3].into() }),
        both.waits(rows(T, RowMode::Update, &[3, 4])),
    ];
    let mut ended = || waits.each_mut().map(done);
    assert_eq!(ended(), [false; 4]);
    one.locks.roll_back_to(mark);
    assert_eq!(ended(), [false, false, true, false], "row 3 is free, row 4 is not");
    drop(other);
    let [a, b, _, d] = &mut waits;
    assert_eq!([done(a), done(b), done(d)], [false, false, true]);
    drop(one);
    assert_eq!([done(a), done(b)], [true, false]);
    drop(first);
    assert!(done(b));
}

#[tokio::test]
async fn who_gives_up_makes_room() {
    let locks = Arc::<LockTable>::default();
    let [reader, writer, late] = parties(&locks);
    reader.gets(table(TableMode::RowExclusive));
    let writing = writer.waits(table(TableMode::AccessExclusive));
    let mut reading = late.waits(table(TableMode::RowExclusive));
    assert!(!done(&mut reading));
    drop(writing);
    assert!(done(&mut reading));
}

#[tokio::test]
async fn circles_of_two_and_three_are_found_when_they_close() {
    let locks = Arc::<LockTable>::default();
    let [a, b, c] = parties(&locks);
    a.gets(rows(T, RowMode::Update, &[1]));
    b.gets(rows(T, RowMode::Update, &[2]));
    c.gets(table(TableMode::Exclusive));
    let mut first = a.waits(rows(T, RowMode::Update, &[2]));
    let detail = b.deadlocks(rows(T, RowMode::Update, &[1]));
    assert_eq!(
        detail,
        "Process 2 waits for AccessExclusiveLock on row 1 of relation 20000; blocked by process 1.\n\
         Process 1 waits for AccessExclusiveLock on row 2 of relation 20000; blocked by process 2."
    );
    let second = b.waits(table(TableMode::RowExclusive));
    assert_eq!(c.deadlocks(rows(T, RowMode::Update, &[1])).lines().count(), 3);
    assert!(!done(&mut first));
    drop((second, b));
    assert!(done(&mut first), "the refused one's locks went with it");
}

#[tokio::test]
async fn a_circle_of_mere_places_in_line_is_undone() {
    let locks = Arc::<LockTable>::default();
    let [holder, early, late] = parties(&locks);
    holder.gets(table(TableMode::RowExclusive));
    late.gets(rows(T, RowMode::Update, &[1]));
    // `early` waits for the table, `late` only for its turn after `early`.
    let mut exclusive = early.waits(table(TableMode::Share));
    let mut turn = late.waits(table(TableMode::RowExclusive));
    // Now `holder` waits for `late`, who waits for `early`, who waits for `holder`.
    let mut row = holder.waits(rows(T, RowMode::Update, &[1]));
    assert!(done(&mut turn), "it went ahead");
    assert!(!done(&mut row) && !done(&mut exclusive));
    drop((late, turn));
    assert!(done(&mut row));
    drop((holder, row));
    assert!(done(&mut exclusive));
}

#[tokio::test]
async fn a_savepoint_gives_back_what_was_locked_after_it() {
    let locks = Arc::<LockTable>::default();
    let [one, other] = parties(&locks);
    one.gets(rows(T, RowMode::Update, &[1]));
    one.gets(Want::keys((T, U), vec![7]));
    let mark = one.locks.savepoint();
    one.gets(written(&[1, 2]));
    one.gets(Want::keys((T, U), vec![7, 8]));
    one.gets(table(TableMode::Share));
    one.gets(number(1, false, Span::Transaction));
    one.gets(number(2, false, Span::Session));
    let mut wait = other.waits(rows(T, RowMode::Share, &[2]));
    one.locks.roll_back_to(mark);
    assert!(done(&mut wait));
    other.gets(Want::keys((T, U), vec![8]));
    other.gets(table(TableMode::RowExclusive));
    other.gets(number(1, false, Span::Transaction));
    other.gets(Want::Unwritten { table: T, rows: [1].into() });
    other.is_refused(rows(T, RowMode::KeyShare, &[1]));
    other.is_refused(Want::keys((T, U), vec![7]));
    other.is_refused(number(2, true, Span::Transaction));
}

#[tokio::test]
async fn whoever_asks_about_a_row_waits_for_writers_only() {
    let locks = Arc::<LockTable>::default();
    let [one, other] = parties(&locks);
    one.gets(rows(T, RowMode::Update, &[1]));
    other.gets(Want::Unwritten { table: T, rows: [1, 2].into() });
    one.gets(written(&[2]));
    let mut wait = other.waits(Want::Unwritten { table: T, rows: [1, 2].into() });
    assert!(!done(&mut wait));
    drop(one);
    assert!(done(&mut wait));
}

#[tokio::test]
async fn numbers_are_counted_and_outlive_the_transaction_if_the_session_took_them() {
    let locks = Arc::<LockTable>::default();
    let (holder, asker) = (locks.enlist(1), locks.enlist(2));
    let transaction = holder.begin();
    let asks = |span, wait| {
        let key = AdvisoryKey { environment: Arc::from("default"), class: 0, object: 5, kind: 1 };
        asker.advisory().ask(key, false, span, wait).unwrap()
    };
    let numbers = holder.advisory();
    let key = AdvisoryKey { environment: Arc::from("default"), class: 0, object: 5, kind: 1 };
    for span in [Span::Session, Span::Session, Span::Transaction] {
        assert!(matches!(numbers.ask(key.clone(), false, span, true).unwrap(), Asked::Granted));
    }
    drop(transaction);
    assert!(numbers.unlock(&key, false));
    assert!(matches!(asks(Span::Session, false), Asked::Refused(_)));
    assert!(numbers.unlock(&key, false));
    assert!(!numbers.unlock(&key, false), "it had two");
    assert!(matches!(asks(Span::Session, false), Asked::Granted));
    drop(asker);
    assert!(matches!(numbers.ask(key.clone(), true, Span::Session, false).unwrap(), Asked::Granted));
    drop(holder);
    assert!(locks.0.lock().held.is_empty());
}

#[tokio::test]
async fn a_table_for_oneself_is_seen_from_afar_while_it_is_held_or_waited_for() {
    let locks = Arc::<LockTable>::default();
    let [one, other] = parties(&locks);
    one.gets(table(TableMode::AccessShare));
    one.gets(table(TableMode::Exclusive));
    assert!(!locks.has_exclusive());
    let mut wait = other.waits(table(TableMode::AccessExclusive));
    assert!(locks.has_exclusive(), "waited for");
    drop(one);
    assert!(done(&mut wait) && locks.has_exclusive(), "held");
    other.gets(table(TableMode::AccessExclusive));
    other.locks.release();
    assert!(!locks.has_exclusive(), "counted once");
    let mark = other.locks.savepoint();
    other.gets(table(TableMode::AccessExclusive));
    other.locks.roll_back_to(mark);
    other.locks.roll_back_to(mark);
    assert!(!locks.has_exclusive());
    let [third] = parties(&locks);
    third.gets(table(TableMode::Share));
    drop(other.waits(table(TableMode::AccessExclusive)));
    assert!(!locks.has_exclusive(), "given up");
}

#[tokio::test]
async fn whoever_relies_on_a_rows_key_relies_on_its_successors() {
    let locks = Arc::<LockTable>::default();
    let [reader, writer, other] = parties(&locks);
    reader.gets(rows(T, RowMode::KeyShare, &[1]));
    let mark = reader.locks.savepoint();
    reader.gets(rows(T, RowMode::KeyShare, &[2]));
    writer.gets(written(&[1, 2, 3]));
    writer.locks.follow(T, &[(RowId(1), RowId(11)), (RowId(2), RowId(12)), (RowId(3), RowId(13))]);
    writer.locks.follow(T, &[(RowId(11), RowId(21))]);
    drop(writer);
    other.gets(rows(T, RowMode::NoKeyUpdate, &[11, 12, 21]));
    other.gets(rows(T, RowMode::Update, &[13]));
    other.is_refused(rows(T, RowMode::Update, &[12]));
    other.is_refused(rows(T, RowMode::Update, &[21]));
    reader.locks.roll_back_to(mark);
    other.gets(rows(T, RowMode::Update, &[12]));
    other.is_refused(rows(T, RowMode::Update, &[21]));
}

/// Until its writer has given back everything, nobody may take away the key of a row that others see already.
#[tokio::test]
async fn what_takes_a_rows_place_is_its_writers() {
    let locks = Arc::<LockTable>::default();
    let [writer, other] = parties(&locks);
    writer.gets(written(&[1, 2]));
    writer.locks.follow(T, &[(RowId(1), RowId(11)), (RowId(2), RowId(12))]);
    other.is_refused(rows(T, RowMode::Update, &[11]));
    other.is_refused(rows(T, RowMode::Update, &[12]));
    other.gets(rows(T, RowMode::KeyShare, &[11, 12]));
    let mut wait = other.waits(rows(T, RowMode::Update, &[12]));
    assert!(!done(&mut wait));
    writer.locks.release();
    assert!(done(&mut wait));
}

/// A plan that is stopped may be in the middle of a call on another thread.
#[tokio::test]
async fn a_number_that_is_locked_for_a_session_that_is_gone_is_free() {
    let locks = Arc::<LockTable>::default();
    let (holder, asker) = (locks.enlist(1), locks.enlist(2));
    let (transaction, plan) = (holder.begin(), holder.advisory());
    drop((transaction, holder));
    let key = |object| AdvisoryKey { environment: Arc::from("default"), class: 0, object, kind: 1 };
    for (object, span) in [(1, Span::Session), (2, Span::Transaction)] {
        assert!(matches!(plan.ask(key(object), false, span, true).unwrap(), Asked::Granted));
        let asked = asker.advisory().ask(key(object), false, Span::Session, false).unwrap();
        assert!(matches!(asked, Asked::Refused(_)));
    }
    let Asked::Waits(waiting) = asker.advisory().ask(key(1), false, Span::Session, true).unwrap() else {
        panic!("it is not held");
    };
    let mut wait = waiting.granted(PATROL).boxed();
    assert!(!done(&mut wait));
    drop(plan);
    assert!(done(&mut wait));
    drop(asker);
    assert!(locks.0.lock().held.is_empty());
}

#[tokio::test]
async fn keys_are_given_back_and_savepoints_are_forgotten() {
    let locks = Arc::<LockTable>::default();
    let [one, other] = parties(&locks);
    let keys = |hashes: &[u64]| Want::keys((T, U), hashes.to_vec());
    one.gets(keys(&[1, 2, 3]));
    let mut wait = other.waits(keys(&[2]));
    assert!(!done(&mut wait));
    one.locks.give_back(&keys(&[2, 9]));
    assert!(done(&mut wait));
    other.is_refused(keys(&[1]));
    other.is_refused(keys(&[3]));
    one.is_refused(keys(&[2]));
    let mark = one.locks.savepoint();
    one.gets(keys(&[4]));
    one.locks.forget_savepoints();
    one.locks.roll_back_to(mark);
    other.is_refused(keys(&[4]));
    one.locks.release();
    other.gets(keys(&[1, 3, 4]));
}
