//! Requests outside a dialog, and the INVITE that makes a call.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use trunkline_config::Route;
use trunkline_link::message::{Command, FailReason, Side};
use trunkline_sinks::catalog::CLASS;
use trunkline_sinks::object::{self, CallState, Role};
use trunkline_sip::dialog::{Dialog, DialogId, SessionPolicy};
use trunkline_sip::message::{Method, Request, Scheme, Uri};
use trunkline_sip::transaction::{Path, ServerTx};

use super::bodies::Received;
use super::headers::{self, ALLOW};
use super::targets::{self, Groups};
use super::{B2bua, RETRY_AFTER_S, awareness, session_id, transfer};
use crate::api::events::EventKind;
use crate::call::media::Media;
use crate::call::negotiation::{Heard, Negotiation};
use crate::call::{Call, Invitation, Leg, Phase};
use crate::clock::Moment;
use crate::metrics::CallResult;
use crate::siprec::server::session::sign_of;

/// A captured header is cut to so much.
const ATTRIBUTE_CHARS_MAX: usize = 256;

/// A refusal: a status, and headers that explain it.
pub(super) type Refused = (u16, Vec<(&'static str, String)>);

impl B2bua {
    pub(super) fn on_request(&mut self, tx: ServerTx, request: Request, path: Path, now: &Moment) {
        if request.headers.to_tag().is_some() {
            let known =
                DialogId::of_request(&request).and_then(|id| self.dialogs.get(&id).copied());
            let Some((key, side)) = known else {
                if let Some(request) = self.recorder_request(tx, request, path, now) {
                    self.respond_plain(tx, &request, 481, now);
                }
                return;
            };
            self.with_call(key, now, |b2bua, call| {
                b2bua.on_dialog_request(call, side, tx, request, path, now);
            });
            return;
        }
        if !matches!(request.method, Method::Invite | Method::Options) {
            self.note_senseless(path, now);
        }
        match request.method {
            Method::Invite => self.on_invite(tx, request, path, now),
            Method::Options => self.on_options(tx, &request, now),
            Method::Bye | Method::Prack | Method::Update => {
                self.respond_plain(tx, &request, 481, now);
            }
            Method::Other(_) => self.respond_with(tx, &request, 501, &[("Allow", ALLOW)], now),
            // Whom it would transfer is not said; a subscription that it could be of is not there.
            Method::Refer => self.respond_plain(tx, &request, 403, now),
            Method::Notify => self.respond_plain(tx, &request, 481, now),
            _ => self.respond_with(tx, &request, 405, &[("Allow", ALLOW)], now),
        }
    }

    /// Whether new calls are refused for the appliance's own reasons.
    pub(super) fn refuses_calls(&self) -> bool {
        self.draining || !self.dataplane_up
    }

    fn on_options(&mut self, tx: ServerTx, request: &Request, now: &Moment) {
        if self.refuses_calls() {
            return self.respond_with(tx, request, 503, &[("Retry-After", RETRY_AFTER_S)], now);
        }
        let headers = [("Allow", ALLOW), ("Accept", "application/sdp")];
        self.respond_with(tx, request, 200, &headers, now);
    }

    fn on_invite(&mut self, tx: ServerTx, request: Request, path: Path, now: &Moment) {
        if self.is_asking(&request) {
            return self.on_asking_invite(tx, request, path, now);
        }
        if let Some(route) = self.recorder_route(&request) {
            return self.on_recording_invite(tx, request, path, route, now);
        }
        if request.headers.contains("Replaces") {
            return match judge(&request) {
                Ok(()) => self.on_replacing_invite(tx, request, path, now),
                Err(refused) => {
                    self.ledger.refused(&request, path, refused.0, now);
                    self.refuse(tx, &request, refused, now);
                }
            };
        }
        match self.admit(&request, path, now) {
            Ok((route, groups, offer)) => {
                self.start_call(tx, request, path, route, groups, offer, now);
            }
            Err(refused) => {
                let status = refused.0;
                if matches!(status, 400 | 404 | 416 | 420 | 482 | 483) {
                    self.note_senseless(path, now);
                }
                self.ledger.refused(&request, path, status, now);
                self.metrics.call_ended(match status {
                    404 => CallResult::NoRoute,
                    503 => CallResult::Refused,
                    _ => CallResult::Failed,
                });
                self.refuse(tx, &request, refused, now);
            }
        }
    }

    pub(super) fn refuse(
        &mut self,
        tx: ServerTx,
        request: &Request,
        refused: Refused,
        now: &Moment,
    ) {
        let (status, headers) = refused;
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        self.respond_with(tx, request, status, &headers, now);
    }

    /// Judges and routes a new INVITE, then looks at our own limits.
    fn admit(
        &mut self,
        request: &Request,
        path: Path,
        now: &Moment,
    ) -> Result<(Arc<Route>, Groups, Option<Heard>), Refused> {
        judge(request)?;
        if self.loops.goes_round(request, &self.config) {
            return Err((482, Vec::new()));
        }
        let route = self.route(request).ok_or((404, Vec::new()))?;
        let groups = targets::groups(&route, request, path)?;
        let offer = match Received::from(request).sdp() {
            None => None,
            Some(sdp) => {
                let heard = Heard::parse_for(&sdp, &route.codecs).and_then(|heard| {
                    Negotiation::new([0, 0])
                        .offer(Side::Caller, heard.clone())
                        .map(|()| heard)
                });
                Some(heard.map_err(|error| {
                    (
                        error.status(),
                        vec![("Warning", format!("399 trunkline \"{error}\""))],
                    )
                })?)
            }
        };
        self.check_limits(request, path, now)?;
        Ok((route, groups, offer))
    }

    pub(super) fn check_limits(
        &mut self,
        request: &Request,
        path: Path,
        now: &Moment,
    ) -> Result<(), Refused> {
        let retry = || vec![("Retry-After", RETRY_AFTER_S.to_owned())];
        if self.refuses_calls() {
            return Err((503, retry()));
        }
        if self.is_emergency(request) {
            return Ok(());
        }
        if self.calls_active() >= self.calls_max as usize {
            return Err((503, retry()));
        }
        // One source's share; Retry-After speaks of all of us.
        let sip = &self.config.sip;
        if !self.sources.admits(path.source.ip(), sip, now.instant) {
            return Err((503, Vec::new()));
        }
        if let Some(limit) = self.config.sip.calls_per_second_max {
            let (start, count) = match self.rate {
                Some((start, count)) if now.instant < start + Duration::from_secs(1) => {
                    (start, count)
                }
                _ => (now.instant, 0),
            };
            if count >= limit {
                return Err((503, vec![("Retry-After", "1".to_owned())]));
            }
            self.rate = Some((start, count + 1));
        }
        Ok(())
    }

    pub(super) fn route(&self, request: &Request) -> Option<Arc<Route>> {
        let user = request.uri.user().unwrap_or(request.uri.opaque());
        let caller = request.headers.from_address().ok();
        let caller = caller
            .as_ref()
            .and_then(|from| from.uri.user())
            .unwrap_or_default();
        let values = |name: &str| -> Vec<String> {
            request
                .headers
                .get_all(name)
                .map(std::borrow::Cow::into_owned)
                .collect()
        };
        self.config
            .routes
            .iter()
            .find(|route| {
                // Values are looked up first: the route wants to borrow them.
                let found: Vec<(String, Vec<String>)> = route
                    .headers
                    .iter()
                    .map(|header| (header.name.clone(), values(&header.name)))
                    .collect();
                route.matches(user, caller, |name| {
                    let list = found
                        .iter()
                        .find(|(known, _)| known.eq_ignore_ascii_case(name));
                    list.map(|(_, list)| list.iter().map(String::as_str).collect::<Vec<_>>())
                        .unwrap_or_default()
                })
            })
            .cloned()
    }

    fn start_call(
        &mut self,
        tx: ServerTx,
        request: Request,
        path: Path,
        route: Arc<Route>,
        groups: Groups,
        offer: Option<Heard>,
        now: &Moment,
    ) {
        let key = rand::random::<u64>().max(1);
        let trying = session_id::trying(&request, &route);
        self.respond(tx, trying, now);
        let Some(mut call) = self.new_call(key, tx, request, path, route, groups, offer, now)
        else {
            return;
        };
        self.own_server(&mut call, tx);
        self.ids.insert(call.object.id.clone(), key);
        self.active += 1;
        self.sources.call_began(path.source.ip(), now.instant);
        call.source = Some(path.source.ip());
        if let Some(invitation) = &call.invitation {
            self.ledger
                .invited_in(&call, &invitation.request, path, now);
        }
        self.publish_call(EventKind::CallStarted, &call, now);
        self.next_group(&mut call, now);
        self.settle(call, now);
    }

    pub(super) fn new_call(
        &mut self,
        key: u64,
        tx: ServerTx,
        request: Request,
        path: Path,
        route: Arc<Route>,
        groups: Groups,
        offer: Option<Heard>,
        now: &Moment,
    ) -> Option<Box<Call>> {
        let user = request.uri.user_decoded().unwrap_or_default().into_owned();
        let contact = Self::contact(
            (!user.is_empty()).then_some(user.as_str()),
            path.transport,
            path.local,
        );
        // The layer's own tag, so that a CANCEL is answered with the same one (RFC 3261 section 9.2).
        let tag = match self.endpoint.local_tag(tx) {
            Some(tag) => tag.to_owned(),
            None => self.endpoint.new_tag(),
        };
        let dialog = contact
            .as_ref()
            .and_then(|contact| Dialog::uas(&request, &tag, contact).ok());
        let (Some(contact), Some(mut dialog)) = (contact, dialog) else {
            self.metrics.call_ended(CallResult::Failed);
            self.ledger.refused(&request, path, 400, now);
            self.respond_plain(tx, &request, 400, now);
            return None;
        };
        let object = self.call_object(&request, &route, path, now);
        session_id::begin(
            &mut dialog,
            &route,
            object.session_id.as_deref().unwrap_or_default(),
        );
        let callee = Leg::new(
            path.transport,
            Some(path.flow),
            path.local,
            path.source,
            contact,
        );
        let caller = Leg {
            dialog: Some(dialog),
            acknowledged: false,
            aware: awareness::is_said(&request.headers),
            ..callee.clone()
        };
        let callee = Leg {
            flow: None,
            ..callee
        };
        self.dialogs.extend(
            caller
                .dialog
                .as_ref()
                .map(|d| (d.id(), (key, Side::Caller))),
        );
        let media_timeout_ms = route.media_timeout_s.map_or(0, |s| s.saturating_mul(1000));
        let media = Media::new(key, [0, 0], media_timeout_ms);
        let negotiation = Negotiation::new([rand::random(), rand::random()]);
        let private = headers::wants_privacy(&request.headers);
        let passes_recording =
            sign_of(&request, Received::from(&request).has_more(), false).is_some();
        Some(Box::new(Call {
            private: [private, false],
            passes_recording,
            invitation: Some(Box::new(Invitation::new(
                Some(tx),
                request,
                groups,
                offer.is_none(),
            ))),
            offer,
            ..Call::new(key, object, route, [caller, callee], media, negotiation)
        }))
    }

    fn call_object(
        &mut self,
        request: &Request,
        route: &Route,
        path: Path,
        now: &Moment,
    ) -> object::Call {
        let from = request.headers.from_address().ok();
        let user = |uri: &Uri| uri.user_decoded().unwrap_or_default().into_owned();
        let sip_call_id = request.headers.call_id().unwrap_or_default();
        let peer = format!("{}:{}", path.transport.param_name(), path.source);
        object::Call {
            id: object::new_id(),
            tenant: route.tenant.clone(),
            state: CallState::Setup,
            caller: from
                .as_ref()
                .map(|from| user(&from.uri))
                .unwrap_or_default(),
            callee: user(&request.uri),
            caller_uri: from
                .as_ref()
                .map(|from| from.uri.to_string())
                .unwrap_or_default(),
            callee_uri: request.uri.to_string(),
            sip_call_id: sip_call_id.clone(),
            session_id: Some(session_id::of_caller(&request.headers)),
            started_at: now.utc,
            answered_at: None,
            ended_at: None,
            ended_by: None,
            sip_code: None,
            q850: None,
            legs: vec![
                object::Leg {
                    id: object::new_id(),
                    role: Role::Caller,
                    sip_call_id,
                    trunk: None,
                    peer,
                    codec: None,
                    state: CallState::Setup,
                },
                object::Leg {
                    id: object::new_id(),
                    role: Role::Callee,
                    sip_call_id: String::new(),
                    trunk: None,
                    peer: String::new(),
                    codec: None,
                    state: CallState::Setup,
                },
            ],
            recordings: Vec::new(),
            recording_expected: false,
            attributes: captured(request, route),
            indications: Vec::new(),
        }
    }

    pub(super) fn interfaces(&self, caller: IpAddr, callee: IpAddr) -> [Option<u8>; 2] {
        [caller, callee].map(|peer| {
            let index = self.config.interface_for(None, peer)?;
            u8::try_from(index).ok()
        })
    }

    /// Our media address towards a side.
    pub(super) fn media_address(&self, call: &Call, side: Side) -> IpAddr {
        let index = usize::from(call.media.interface[side as usize]);
        self.config
            .interfaces
            .get(index)
            .map_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), |interface| {
                interface.advertised()
            })
    }

    /// What the dataplane has to know of both sides.
    pub(super) fn leg_commands(&self, call: &mut Call) -> Vec<Command> {
        let nat = self.config.sip.nat;
        let mut commands = Vec::new();
        for side in Side::BOTH {
            let signalling = call.leg(side).remote.ip();
            let updates = call
                .negotiation
                .leg_updates(call.key, side, Some(signalling), nat);
            for update in updates {
                commands.push(call.media.leg_command(update));
            }
        }
        commands
    }

    /// Ports are there: the INVITE goes out.
    pub(super) fn invite(&mut self, call: &mut Call, failed: Option<FailReason>, now: &Moment) {
        if call.phase != Phase::Preparing {
            return;
        }
        if let Some(reason) = failed {
            let status = match reason {
                FailReason::Invalid | FailReason::NotFound => 500,
                _ => 503,
            };
            tracing::warn!(call = %call.object.id, ?reason, "the dataplane refused a session");
            return self.fail_call(call, status, "no media ports", now);
        }
        self.ring(call, now);
    }
}

/// Judges a new INVITE in the order of RFC 3261 section 8.2.
fn judge(request: &Request) -> Result<(), Refused> {
    if !matches!(
        request.uri.scheme(),
        Scheme::Sip | Scheme::Tel | Scheme::Urn
    ) {
        return Err((416, Vec::new()));
    }
    let mut required = request.headers.list("Require");
    required.retain(|option| !transfer::understood(&Method::Invite, option));
    required.extend(request.headers.list("Proxy-Require"));
    if !required.is_empty() {
        return Err((420, vec![("Unsupported", required.join(", "))]));
    }
    if request.headers.max_forwards().ok().flatten() == Some(0) {
        return Err((483, Vec::new()));
    }
    if let Err(too_small) = SessionPolicy::default().accept(&request.headers) {
        return Err((422, vec![("Min-SE", too_small.min_se.to_string())]));
    }
    // Without it no request of ours could reach the caller (RFC 3261 section 8.1.1.8).
    if request.headers.contact_uri().is_none() {
        return Err((
            400,
            vec![("Warning", "399 trunkline \"no usable Contact\"".to_owned())],
        ));
    }
    Received::from(request).judge()
}

/// The headers that the route wants as attributes, first value each, and the route's class.
fn captured(request: &Request, route: &Route) -> BTreeMap<String, String> {
    let value = |name: &String| {
        let value = request.headers.get(name)?;
        let value: String = value.chars().take(ATTRIBUTE_CHARS_MAX).collect();
        Some((name.clone(), value))
    };
    let class = route
        .class
        .iter()
        .map(|class| (CLASS.to_owned(), class.clone()));
    let headers = route.capture_headers.iter().filter_map(value);
    headers.chain(class).collect()
}
