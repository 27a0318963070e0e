//! Bytes of a calibration: what follows an index's own since version 2 (`crate::layout`).
//!
//! ```text
//! offset size
//!      0    2  curves, 1 to 16
//!      2    2  wear (`crate::wear`), 1 to 10,000 in version 3; 0 in version 2; 0 to 10,000 in version 4
//!              then each curve, ascending by k:
//!           2  k, neighbours asked for, from 1 on
//!           2  q, questions, from 1 on
//!           2  r, rungs, 1 to 64
//!           2  zero
//!        12·r  a rung, ascending by effort: effort u32 from 1 on; neighbours found u32, q·k at most; the sum of the
//!              squares of what each question found u32, at most q·k² and no less than found²/q
//!              in version 4 then:
//!           2  s, steps, 1 to 64
//!           2  zero
//!         8·s  a step, ascending by effort: effort u32 from 1 on; the reach of walks (`crate::graph`) f32 from 0 on
//! ```

use super::{Calibration, Curve, Rung};
use crate::graph::{Reach, Step};
use crate::layout::{Measured, Reader, Writer};
use crate::{IndexError, Wear};

pub(super) const MOST_CURVES: usize = 16;
pub(super) const MOST_RUNGS: usize = 64;
const MOST_STEPS: usize = 64;

pub(super) fn encode(calibration: &Calibration) -> Vec<u8> {
    let rungs: usize = calibration.curves.iter().map(|curve| curve.rungs.len()).sum();
    let steps = calibration.reach.steps();
    let mut writer = Writer::with_capacity(8 + 8 * calibration.curves.len() + 12 * rungs + 8 * steps.len());
    writer.u16(calibration.curves.len() as u16);
    writer.u16(calibration.wear.to_bits());
    for curve in &calibration.curves {
        writer.u16(curve.k);
        writer.u16(curve.questions);
        writer.u16(curve.rungs.len() as u16);
        writer.u16(0);
        for Rung { effort, found, squares } in &curve.rungs {
            writer.u32s(&[*effort, *found, *squares]);
        }
    }
    if !steps.is_empty() {
        writer.u16(steps.len() as u16);
        writer.u16(0);
        for Step { effort, reach } in steps {
            writer.u32(*effort);
            writer.f32s(&[*reach]);
        }
    }
    writer.into_bytes()
}

/// `measured`: what the index's header says of it.
pub(super) fn decode(bytes: &[u8], measured: Measured) -> Result<Calibration, IndexError> {
    let mut reader = Reader::new(bytes);
    let (count, wear) = (usize::from(reader.u16()?), reader.u16()?);
    let (true, Some(wear)) = ((1..=MOST_CURVES).contains(&count), Wear::from_bits(wear)) else {
        return Err(reader.corrupt(format!("{count} curves or a wear of {wear} in the calibration")));
    };
    let mut curves: Vec<Curve> = Vec::with_capacity(count);
    for _ in 0..count {
        let curve = decode_curve(&mut reader)?;
        if curves.last().is_some_and(|last| last.k >= curve.k) {
            return Err(reader.corrupt("the calibration's curves do not ascend"));
        }
        curves.push(curve);
    }
    let reach = match measured {
        Measured::Reach => decode_reach(&mut reader)?,
        Measured::Recall | Measured::Wear => Reach::default(),
    };
    reader.finish()?;
    let calibration = Calibration { wear, curves, reach };
    if calibration.measured() != measured {
        return Err(reader.corrupt(format!("a wear of {} in another version's calibration", wear.to_bits())));
    }
    Ok(calibration)
}

fn decode_reach(reader: &mut Reader) -> Result<Reach, IndexError> {
    let (count, zero) = (usize::from(reader.u16()?), reader.u16()?);
    if !(1..=MOST_STEPS).contains(&count) || zero != 0 {
        return Err(reader.corrupt(format!("{count} steps of a reach, and {zero}")));
    }
    let mut steps = Vec::with_capacity(count);
    for _ in 0..count {
        steps.push(Step { effort: reader.u32()?, reach: reader.f32()? });
    }
    Reach::from_steps(steps).ok_or_else(|| reader.corrupt("the steps of a reach are out of order or range"))
}

fn decode_curve(reader: &mut Reader) -> Result<Curve, IndexError> {
    let (k, questions) = (reader.u16()?, reader.u16()?);
    let (count, zero) = (usize::from(reader.u16()?), reader.u16()?);
    if k == 0 || questions == 0 || !(1..=MOST_RUNGS).contains(&count) || zero != 0 {
        return Err(reader.corrupt(format!("a curve of k {k}, {questions} questions and {count} rungs")));
    }
    let mut rungs: Vec<Rung> = Vec::with_capacity(count);
    for _ in 0..count {
        let rung = Rung { effort: reader.u32()?, found: reader.u32()?, squares: reader.u32()? };
        let (k, questions, found) = (u64::from(k), u64::from(questions), u64::from(rung.found));
        let squares = u64::from(rung.squares);
        let possible = found <= questions * k && squares <= found * k && squares * questions >= found * found;
        if !possible || rungs.last().map_or(0, |last| last.effort) >= rung.effort {
            return Err(reader.corrupt(format!("{rung:?} after {:?}", rungs.last())));
        }
        rungs.push(rung);
    }
    Ok(Curve { k, questions, rungs })
}
