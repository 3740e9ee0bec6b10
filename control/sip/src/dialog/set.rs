//! All dialogs of a user agent, each with the user's own context.

use std::collections::HashMap;

use super::id::DialogId;
use super::state::{Dialog, DialogState};
use crate::message::{Request, Response};

/// A dialog that was taken out of the set, with its context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended<T> {
    pub dialog: Dialog,
    pub context: T,
}

/// Dialogs by identity. The context rides along with its dialog and comes with every look-up.
#[derive(Clone, Debug)]
pub struct DialogSet<T> {
    dialogs: HashMap<DialogId, (Dialog, T)>,
}

impl<T> Default for DialogSet<T> {
    fn default() -> DialogSet<T> {
        DialogSet {
            dialogs: HashMap::new(),
        }
    }
}

impl<T> DialogSet<T> {
    pub fn new() -> DialogSet<T> {
        DialogSet::default()
    }

    pub fn len(&self) -> usize {
        self.dialogs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.dialogs.is_empty()
    }

    /// Adds a dialog and gives its identity; one of the same identity is replaced.
    pub fn insert(&mut self, dialog: Dialog, context: T) -> DialogId {
        let id = dialog.id();
        self.dialogs.insert(id.clone(), (dialog, context));
        id
    }

    pub fn get(&self, id: &DialogId) -> Option<(&Dialog, &T)> {
        self.dialogs
            .get(id)
            .map(|(dialog, context)| (dialog, context))
    }

    pub fn get_mut(&mut self, id: &DialogId) -> Option<(&mut Dialog, &mut T)> {
        self.dialogs
            .get_mut(id)
            .map(|(dialog, context)| (dialog, context))
    }

    /// The dialog a received request belongs to. `None` for a request with a To tag means: it
    /// is answered 481 (an ACK is ignored).
    pub fn of_request(&mut self, request: &Request) -> Option<(&mut Dialog, &mut T)> {
        self.get_mut(&DialogId::of_request(request)?)
    }

    /// The dialog a received response belongs to.
    pub fn of_response(&mut self, response: &Response) -> Option<(&mut Dialog, &mut T)> {
        self.get_mut(&DialogId::of_response(response)?)
    }

    /// Takes a dialog out.
    pub fn remove(&mut self, id: &DialogId) -> Option<Ended<T>> {
        self.dialogs
            .remove(id)
            .map(|(dialog, context)| Ended { dialog, context })
    }

    /// Takes out the early dialogs that an INVITE of ours made, but for the one that won: with
    /// its 2xx the others are over unless they answer too (RFC 3261 section 13.2.2.4).
    pub fn remove_other_forks(&mut self, winner: &DialogId) -> Vec<Ended<T>> {
        let loses = |id: &DialogId, dialog: &Dialog| {
            id.call_id == winner.call_id
                && id.local_tag == winner.local_tag
                && id != winner
                && dialog.state() == DialogState::Early
        };
        let mut losers: Vec<DialogId> = self
            .dialogs
            .iter()
            .filter(|(id, (dialog, _))| loses(id, dialog))
            .map(|(id, _)| id.clone())
            .collect();
        losers.sort();
        losers.iter().filter_map(|id| self.remove(id)).collect()
    }

    /// All dialogs, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Dialog, &T)> {
        self.dialogs
            .values()
            .map(|(dialog, context)| (dialog, context))
    }
}
