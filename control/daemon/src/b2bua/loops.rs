//! Loop detection (RFC 5393 section 4.2): the branch of each INVITE of ours ends in a hash of what its
//! way was chosen by. An INVITE that shows such a branch with the hash that it would get itself has
//! come back unchanged, and would for ever; one with another hash is on a spiral.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use trunkline_config::Config;
use trunkline_sip::message::Request;

/// Makes and recognizes the marks. Nobody else can make one: the hash has a key of its own.
#[derive(Debug, Default)]
pub(super) struct Loops(RandomState);

impl Loops {
    /// What the branch of an INVITE that follows from `received` ends in.
    pub(super) fn mark(&self, received: &Request, config: &Config) -> String {
        let mut hasher = self.0.build_hasher();
        received.uri.to_string().hash(&mut hasher);
        let from = received.headers.from_address().ok();
        from.and_then(|from| Some(from.uri.user()?.to_owned()))
            .hash(&mut hasher);
        let by_routes = config.routes.iter().flat_map(|route| &route.headers);
        let names = by_routes.map(|header| header.name.as_str());
        for name in names.chain(["Replaces"]) {
            for value in received.headers.get_all(name) {
                value.hash(&mut hasher);
            }
            0_u8.hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }

    /// Whether a received INVITE goes round.
    pub(super) fn goes_round(&self, received: &Request, config: &Config) -> bool {
        let mark = self.mark(received, config);
        let vias = received.headers.vias().unwrap_or_default();
        vias.iter().any(|via| {
            let branch = via.branch().and_then(|branch| branch.rsplit_once('.'));
            branch.is_some_and(|(_, known)| known == mark)
        })
    }
}
