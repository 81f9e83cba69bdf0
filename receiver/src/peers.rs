//! What receivers that share a store must know of each other, so that each client may come to any
//! of them: the keys that verify their tokens, the CRLs that any of them was given, and what
//! clients have used of their limits.
//!
//! ```text
//! our token keys, signed by our certificate ──> store ──> theirs, verified ──> token
//! CRLs in force here ─────────────────────────> store ──> those that are newer ──> trust
//! what holders used of their limits ──────────> store ──> counted here, too ─────> quotas
//! ```
//!
//! Nothing is believed because it is in the store. A key counts by its statement, for as long as
//! the certificate that signed it is trusted here; a CRL by its issuer's signature, as if it were
//! pushed. Who can write to the store can use up a holder's limit, and no more.

mod crls;
mod usage;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lizmon_mtls::quota_use::HolderQuotas;
use lizmon_mtls::rate_limited_log::RateLimitedLog;
use lizmon_mtls::trust::TrustReader;
use uuid::Uuid;

pub use self::crls::CrlExchange;
use self::usage::UsageExchange;
use crate::clock::{Clocks, StoreClock};
use crate::periodic::Periodic;
use crate::receiver_keys::{KeyStatementVerifier, ReceiverKeys};
use crate::store::signing::PublishedKey;
use crate::store::{Members, SharedStore, StoreError};
use crate::token::Tokens;

/// How often receivers look what is new. What one of them was told is known to all after twice that
/// time.
pub const EXCHANGE_EVERY: Duration = Duration::from_millis(200);
/// After how many exchanges receivers tell what was used of the limits: a second.
const EXCHANGES_BETWEEN: u32 = 5;
/// How much longer than a token our keys stay published after we are gone: seconds.
const PUBLISHED_LONGER_SECS: u64 = 60;

/// A receiver's part in the exchange.
pub struct Peers {
    store: Box<dyn SharedStore>,
    crls: CrlExchange,
    own: Arc<ReceiverKeys>,
    verifier: Arc<KeyStatementVerifier>,
    tokens: Arc<Tokens>,
    trust: TrustReader,
    clocks: Clocks,
    store_clock: Arc<StoreClock>,
    honoured: Option<Honoured>,
    usage: UsageExchange,
    exchanges: u32,
    failures: RateLimitedLog,
}

/// What was published when the keys of others were verified last, by which trust, and when.
#[derive(Debug, PartialEq, Eq)]
struct Honoured {
    published: Vec<PublishedKey>,
    generation: u64,
    at: u64,
}

/// What a receiver brings to the exchange.
pub struct PeerKeys {
    /// Our token keys, as others trust them.
    pub own: Arc<ReceiverKeys>,
    /// Verifies those of others.
    pub verifier: Arc<KeyStatementVerifier>,
    /// Where the keys of others are honoured.
    pub tokens: Arc<Tokens>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peers by {:?}", self.trust)
    }
}

impl Peers {
    /// Takes part in the exchange, and has done so once.
    pub fn open(
        store: Box<dyn SharedStore>,
        crls: CrlExchange,
        keys: PeerKeys,
        quotas: HolderQuotas,
        member: Uuid,
        trust: TrustReader,
        (clocks, store_clock): (Clocks, Arc<StoreClock>),
    ) -> Result<Self, StoreError> {
        let mut peers = Self {
            store,
            crls,
            own: keys.own,
            verifier: keys.verifier,
            tokens: keys.tokens,
            trust,
            clocks,
            store_clock,
            honoured: None,
            usage: UsageExchange::new(quotas, member),
            exchanges: 0,
            failures: RateLimitedLog::default(),
        };
        peers.exchange()?;
        Ok(peers)
    }

    fn exchange(&mut self) -> Result<(), StoreError> {
        // Before keys: one that is signed by a certificate that was revoked is not honoured.
        let crls = self.crls.exchange(&mut *self.store, (self.clocks.wall)());
        let keys = self.exchange_keys();
        let is_due = self.exchanges.is_multiple_of(EXCHANGES_BETWEEN);
        self.exchanges = self.exchanges.wrapping_add(1);
        let usage = match is_due {
            true => self.every_second(),
            false => Ok(()),
        };
        crls.and(keys).and(usage)
    }

    fn every_second(&mut self) -> Result<(), StoreError> {
        measure(&mut *self.store, &self.store_clock, &self.clocks)?;
        self.usage.exchange(&mut *self.store)
    }

    fn exchange_keys(&mut self) -> Result<(), StoreError> {
        let own = self.own.published(self.store.store_id());
        let secs = self.tokens.ttl().saturating_add(PUBLISHED_LONGER_SECS);
        let mut published = self.store.publish_keys(&own, secs.saturating_mul(1_000))?;
        published.retain(|key| !own.iter().any(|own| own.id == key.id));
        let found = Honoured {
            published,
            generation: self.trust.current().generation(),
            at: (self.clocks.wall)(),
        };
        if self.honoured.as_ref() != Some(&found) {
            let store = self.store.store_id();
            let keys = self.verifier.token_keys(store, &found.published);
            self.tokens.set_foreign(keys);
            self.honoured = Some(found);
        }
        Ok(())
    }
}

/// Compares the store's clock with this machine's.
pub(crate) fn measure(
    store: &mut dyn Members,
    store_clock: &StoreClock,
    clocks: &Clocks,
) -> Result<(), StoreError> {
    let before = (clocks.fine)();
    if let Some(time) = store.time()? {
        store_clock.measure(before, time, (clocks.fine)());
    }
    Ok(())
}

impl Periodic for Peers {
    const NAME: &'static str = "peers";
    const EVERY: Duration = EXCHANGE_EVERY;

    fn act(&mut self, _clocks: &Clocks) {
        if let Err(error) = self.exchange() {
            let error = &error as &dyn std::error::Error;
            self.failures.say(|unsaid| {
                tracing::warn!(
                    error,
                    unsaid,
                    "token keys and CRLs cannot be exchanged with other receivers"
                );
            });
        }
    }

    /// Our keys stay published: clients have our tokens.
    fn finish(mut self) -> Result<(), StoreError> {
        self.usage.finish(&mut *self.store);
        Ok(())
    }
}
