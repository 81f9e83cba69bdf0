//! Who reads and posts in measurements that have no connection.

#![expect(clippy::unwrap_used, reason = "a measurement: it fails by panicking")]

use lizmon_mtls::identity::Identity;
use lizmon_protocol::token::{Claims, Confirmation, Scope};

const HOUR: u64 = 3_600;

/// An operator.
pub(crate) fn identity(now: u64) -> Identity {
    Identity {
        spiffe_id: "spiffe://lizmon.test/operator/bench".parse().unwrap(),
        attributes: Default::default(),
        serial: [1].into(),
        thumbprint: [0; 32],
        not_before: 0,
        not_after: now + HOUR,
    }
}

/// What the operator's token says.
pub(crate) fn claims_of(holder: &Identity, now: u64) -> Claims {
    Claims {
        iss: "https://lizmon.test".to_owned(),
        aud: "https://lizmon.test".to_owned(),
        sub: "bench".parse().unwrap(),
        client_id: holder.spiffe_id.clone(),
        scope: [Scope::MetricsRead].into_iter().collect(),
        iat: now,
        nbf: now,
        exp: now + HOUR,
        jti: "1".to_owned(),
        cnf: Confirmation {
            x5t_s256: "A".repeat(43),
        },
    }
}
