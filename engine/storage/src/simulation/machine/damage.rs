//! What a drive does to a file that nobody writes: bits flip, sectors vanish, writes go astray.

use std::path::PathBuf;

use super::{Image, Machine, SECTOR};
use crate::simulation::dice::Dice;

/// One thing that went wrong with one file.
#[derive(Clone, Debug)]
pub(in super::super) struct Damage {
    pub file: PathBuf,
    pub what: String,
}

impl Machine {
    /// Damages one file of the image and puts it on the disk. `None` where there is nothing to damage.
    pub(in super::super) fn damage(&self, image: &Image, dice: &mut Dice) -> Option<Damage> {
        let paths: Vec<&PathBuf> = image.0.keys().collect();
        let file = (*paths.get(dice.index(paths.len()))?).clone();
        let mut damaged = image.clone();
        let kind = dice.below(8);
        if kind == 7 {
            damaged.0.remove(&file);
            self.restore(&damaged);
            return Some(Damage { file, what: "it is gone".to_owned() });
        }
        // Another file's sector, for a write that was meant for that one.
        let other = paths.get(dice.index(paths.len())).and_then(|path| image.0.get(*path))?;
        let astray = sector(other, dice.index(other.len().div_ceil(SECTOR))).to_vec();
        let bytes = damaged.0.get_mut(&file)?;
        let at = dice.index(bytes.len());
        let start = at / SECTOR * SECTOR;
        let what = match kind {
            0..=3 => {
                let bit = dice.below(8);
                *bytes.get_mut(at)? ^= 1 << bit;
                format!("bit {bit} of byte {at} flipped")
            }
            4 => {
                bytes[start..].iter_mut().take(SECTOR).for_each(|byte| *byte = 0);
                format!("the sector at byte {start} is zero")
            }
            5 => {
                bytes[start..].iter_mut().zip(&astray).for_each(|(byte, stray)| *byte = *stray);
                format!("the sector at byte {start} is another one's")
            }
            _ => {
                bytes.truncate(at);
                format!("it is cut after {at} bytes")
            }
        };
        self.restore(&damaged);
        Some(Damage { file, what })
    }
}

fn sector(bytes: &[u8], index: usize) -> &[u8] {
    let start = (index * SECTOR).min(bytes.len());
    &bytes[start..(start + SECTOR).min(bytes.len())]
}
