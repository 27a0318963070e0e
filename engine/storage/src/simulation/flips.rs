//! Each byte of a small data directory, flipped in turn: an error that names the file, or the right answer.
//!
//! `make test` takes every 13th byte, `make soak` (`SEPAL_FLIPS=all`) every one.

use std::collections::BTreeSet;

use super::{
    machine::{Damage, Image},
    world::{Verdict, World},
};

/// Every so many bytes.
const STEP: usize = 13;
const KINDS: [&str; 5] = ["manifest", "wal", "parquet", "index", "deleted"];

fn step() -> usize {
    if std::env::var("SEPAL_FLIPS").is_ok_and(|flips| flips == "all") { 1 } else { STEP }
}

/// A closed store with every kind of file, and what is in it; `None` where a kind is missing.
fn furnished(seed: u64) -> Verdict<Option<(World, Image)>> {
    let mut world = World::calm(seed);
    world.open()?;
    for _ in 0..16 {
        world.act(true)?;
    }
    world.erode()?;
    world.attach()?;
    for _ in 0..3 {
        world.act(true)?;
    }
    world.shut()?;
    let image = world.machine.image();
    let extension =
        |path: &std::path::PathBuf| path.extension().map(|kind| kind.to_string_lossy().into_owned());
    let kinds: BTreeSet<String> = image.0.keys().filter_map(extension).collect();
    let complete = KINDS.iter().all(|kind| kinds.contains(*kind));
    Ok(complete.then_some((world, image)))
}

#[test]
fn no_flipped_byte_gives_a_wrong_answer() {
    let found = (1..500).find_map(|seed| furnished(seed).expect("a run without faults"));
    let (world, image) = found.expect("some seed leaves every kind of file");
    let (mut flips, mut noticed) = (0, 0);
    for (path, bytes) in &image.0 {
        for at in (0..bytes.len()).step_by(step()) {
            let mut damaged = image.clone();
            let flipped = damaged.0.get_mut(path).expect("the file is in the image");
            flipped[at] ^= 1 << (at % 8);
            world.machine.restore(&damaged);
            let damage = Damage { file: path.clone(), what: format!("a flip in byte {at}") };
            let endured = world.endure(&image, &damage);
            let told = endured.unwrap_or_else(|why| panic!("{} byte {at}: {why}", path.display()));
            flips += 1;
            noticed += u32::from(told);
        }
    }
    world.machine.restore(&image);
    world.read_all().expect("without damage it reads");
    // parquet-rs skips a few bytes: column metadata that the footer repeats. Everything else is sealed.
    assert!(noticed * 10 > flips * 8, "of {flips} flips only {noticed} were noticed");
    println!("{flips} flips, {noticed} noticed, no wrong answer");
}
