//! The packets of a capture in the order of their time.
//!
//! Where the capture has times, its own order serves. SN1 and SN2 have none, and each leg's time
//! starts at its own first frame: there each leg is read for itself, and the two go in step.

use crate::plan::Plan;
use crate::router::{Routed, Router};
use trunkline_sn3::{Capture, Frame};

/// One reading of the capture.
struct Lane<'a> {
    frames: Box<dyn Iterator<Item = Frame<'a>> + 'a>,
    router: Router,
    /// Indexes of the plan's runs, by the lane's own; all of them in order where `None`.
    runs: Option<Vec<usize>>,
    next: Option<(Frame<'a>, Routed)>,
}

/// See the module.
pub(crate) struct Feed<'a> {
    lanes: Vec<Lane<'a>>,
}

impl<'a> Feed<'a> {
    pub(crate) fn new(capture: &'a Capture, plan: &Plan) -> Self {
        let format = |run: usize| plan.assumed.get(run).map(|assumed| assumed.format);
        let lane = |side: Option<u8>| {
            let runs: Option<Vec<usize>> = side.map(|side| {
                let of_side = |run: &usize| plan.runs[*run].side == usize::from(side);
                (0..plan.runs.len()).filter(of_side).collect()
            });
            let formats = match &runs {
                Some(runs) => runs.iter().map(|&run| format(run)).collect(),
                None => (0..plan.assumed.len()).map(format).collect(),
            };
            let wanted = move |frame: &Frame<'_>| {
                frame.is_audio() && side.is_none_or(|side| frame.side & 1 == side)
            };
            let mut lane = Lane {
                frames: Box::new(capture.frames().filter(wanted)),
                router: Router::new(capture.format(), formats),
                runs,
                next: None,
            };
            lane.advance();
            lane
        };
        let lanes = if capture.format().has_wall() {
            vec![lane(None)]
        } else {
            vec![lane(Some(0)), lane(Some(1))]
        };
        Self { lanes }
    }
}

impl<'a> Iterator for Feed<'a> {
    type Item = (Frame<'a>, Routed);

    fn next(&mut self) -> Option<Self::Item> {
        let time = |lane: &Lane<'_>| lane.next.as_ref().map_or(i64::MAX, |next| next.1.wall_ns);
        let lane = self.lanes.iter_mut().min_by_key(|lane| time(lane))?;
        let next = lane.next.take();
        lane.advance();
        next
    }
}

impl Lane<'_> {
    fn advance(&mut self) {
        self.next = self.frames.find_map(|frame| {
            let mut routed = self.router.route(&frame)?;
            if let Some(runs) = &self.runs {
                routed.run = *runs.get(routed.run)?;
            }
            Some((frame, routed))
        });
    }
}
