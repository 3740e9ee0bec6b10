//! Whether the cost of a packet stays the same from few flows to many.

use anyhow::Result;

use crate::contestant::{Contestant, Stage};
use crate::place::Rig;
use crate::relay::Bench;

/// The name of the run with few flows.
pub const FEW: &str = "trunkline, few flows";
/// The name of the run with many: as many as have a socket a port where files are scarce.
pub const MANY: &str = "trunkline, many flows";
/// The name of the run with the most: more ports than open files.
pub const MOST: &str = "trunkline, most flows";
const FEW_CALLS: u32 = 50;

impl Bench<'_> {
    /// CPU a packet of ours with few calls, with `many` and with `most`, at the same rate.
    ///
    /// # Errors
    /// The rig cannot be set up.
    pub fn flat(&mut self, rig: Rig, many: u32, most: u32) -> Result<()> {
        self.stage.place.set_rig(rig)?;
        self.results.note(format!(
            "Few flows: {}; many flows: {}; most flows: {}.",
            2 * FEW_CALLS,
            2 * many,
            2 * most
        ));
        for round in 0..self.effort.rounds {
            for (calls, name) in [(FEW_CALLS, FEW), (many, MANY), (most, MOST)] {
                let stage = Stage {
                    calls,
                    ..self.stage
                };
                self.cpu_of(round, rig, &stage, Contestant::Trunkline, name)?;
            }
        }
        Ok(())
    }
}
