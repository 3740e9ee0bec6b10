//! In which order records of the DNS are tried.

use rand::Rng;
use trunkline_sip::transaction::Transport;

/// An SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Srv {
    /// Lower ones first.
    pub(super) priority: u16,
    /// Share among those of one priority.
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: String,
}

/// A NAPTR record (RFC 3403), as far as RFC 3263 uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Naptr {
    /// Lower ones first.
    pub(super) order: u16,
    /// Among those of one order, lower ones first.
    pub(super) preference: u16,
    pub(super) flags: String,
    pub(super) services: String,
    pub(super) replacement: String,
}

/// SRV records by priority; those of one priority drawn by weight.
pub(super) fn by_weight(mut records: Vec<Srv>, random: &mut impl Rng) -> Vec<Srv> {
    // "." says that the service is not offered here at all (RFC 2782).
    records.retain(|one| !one.target.is_empty() && one.port > 0);
    // Weight zero first: it is drawn where the random number is zero only.
    records.sort_by_key(|one| (one.priority, one.weight != 0));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|one| one.priority) {
        let same = records.iter().take_while(|one| one.priority == priority);
        let weights: Vec<u32> = same.map(|one| u32::from(one.weight)).collect();
        let drawn = random.random_range(0..=weights.iter().sum());
        let mut sum = 0;
        let reached = weights.iter().position(|weight| {
            sum += weight;
            sum >= drawn
        });
        ordered.push(records.remove(reached.unwrap_or(0)));
    }
    ordered
}

/// The SRV names that NAPTR records lead to, with the transport of each: those of transports that we
/// have (RFC 3263 section 4.1).
pub(super) fn by_preference(
    mut records: Vec<Naptr>,
    ours: &[Transport],
) -> Vec<(Transport, String)> {
    records.sort_by_key(|one| (one.order, one.preference));
    let usable = records.into_iter().filter_map(|one| {
        let transport = match one.services.to_ascii_uppercase().as_str() {
            "SIP+D2U" => Transport::Udp,
            "SIP+D2T" => Transport::Tcp,
            _ => return None,
        };
        let leads_to_srv = one.flags.eq_ignore_ascii_case("s") && !one.replacement.is_empty();
        (leads_to_srv && ours.contains(&transport)).then_some((transport, one.replacement))
    });
    usable.collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn srv(priority: u16, weight: u16, target: &str) -> Srv {
        Srv {
            priority,
            weight,
            port: 5060,
            target: target.to_owned(),
        }
    }

    #[test]
    fn priorities_come_in_order_and_weights_share_within_one() {
        let records = vec![
            srv(20, 0, "last"),
            srv(10, 60, "big"),
            srv(10, 20, "small"),
            srv(10, 20, "other"),
            srv(10, 0, "seldom"),
            srv(5, 1, "."),
        ];
        let mut random = StdRng::seed_from_u64(1);
        let mut first = std::collections::BTreeMap::<String, u32>::new();
        for _ in 0..1000 {
            let mut records = records.clone();
            records[5].target = String::new();
            let order = by_weight(records, &mut random);
            assert_eq!(order.len(), 5);
            assert_eq!(order[4].target, "last");
            *first.entry(order[0].target.clone()).or_default() += 1;
        }
        assert!((500..700).contains(&first["big"]), "{first:?}");
        assert!((130..270).contains(&first["small"]), "{first:?}");
        assert!((130..270).contains(&first["other"]), "{first:?}");
        assert!(first.get("seldom").copied().unwrap_or(0) < 50, "{first:?}");
    }

    #[test]
    fn of_naptr_records_those_count_that_lead_to_srv_of_our_transports() {
        let naptr = |order, preference, flags: &str, services: &str, to: &str| Naptr {
            order,
            preference,
            flags: flags.to_owned(),
            services: services.to_owned(),
            replacement: to.to_owned(),
        };
        let records = vec![
            naptr(10, 50, "s", "SIPS+D2T", "_sips._tcp.a"),
            naptr(20, 20, "S", "sip+d2u", "_sip._udp.a"),
            naptr(20, 10, "s", "SIP+D2T", "_sip._tcp.a"),
            naptr(5, 1, "u", "E2U+sip", ""),
            naptr(5, 2, "a", "SIP+D2U", "a"),
        ];
        let both = [Transport::Udp, Transport::Tcp];
        assert_eq!(
            by_preference(records.clone(), &both),
            [
                (Transport::Tcp, "_sip._tcp.a".to_owned()),
                (Transport::Udp, "_sip._udp.a".to_owned())
            ]
        );
        let udp = by_preference(records, &both[..1]);
        assert_eq!(udp, [(Transport::Udp, "_sip._udp.a".to_owned())]);
    }
}
