//! Whether the cost of a packet stays the same from few flows to many.

use anyhow::Result;

use crate::contestant::{Contestant, Stage};
use crate::place::Rig;
use crate::relay::Bench;

/// The name of the run with few flows.
pub const FEW: &str = "trunkline, few flows";
/// The name of the run with many.
pub const MANY: &str = "trunkline, many flows";
const FEW_CALLS: u32 = 50;

impl Bench<'_> {
    /// CPU a packet of ours with few calls and with `many`, at the same rate.
    ///
    /// # Errors
    /// The rig cannot be set up.
    pub fn flat(&mut self, rig: Rig, many: u32) -> Result<()> {
        self.stage.place.set_rig(rig)?;
        self.results.note(format!(
            "Few flows: {}; many flows: {}.",
            2 * FEW_CALLS,
            2 * many
        ));
        for round in 0..self.effort.rounds {
            for (calls, name) in [(FEW_CALLS, FEW), (many, MANY)] {
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
