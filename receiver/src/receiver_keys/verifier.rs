//! Verifies keys that receivers published, and what they signed with them.

use std::fmt;
use std::sync::Arc;

use lizmon_mtls::Clock;
use lizmon_mtls::rate_limited_log::RateLimitedLog;
use lizmon_mtls::trust::TrustReader;
use quick_cache::sync::Cache;

use super::statement::{KeyRefusal, KeyStatement};
use crate::store::signing::{GroupRefusal, GroupVerifier, PublishedKey};
use crate::token::ForeignTokenKey;

/// How many statements are cached: several for each receiver of a large group. With the largest
/// ones, 4 MB.
const CACHED_MAX: usize = 256;

/// Verifies key statements, by the trust in force.
pub struct KeyStatementVerifier {
    pub(super) trust: TrustReader,
    pub(super) clock: Clock,
    /// By the bytes of the statement.
    cached: Cache<Box<str>, Arc<Judgement>>,
    log: RateLimitedLog,
}

/// What was found out about a statement.
struct Judgement {
    store: Box<str>,
    /// The trust that it was judged by.
    generation: u64,
    at: u64,
    found: Result<KeyStatement, KeyRefusal>,
}

impl Judgement {
    /// Whether the same would be found again.
    fn holds(&self, store: &str, generation: u64, now: u64) -> bool {
        let until = match &self.found {
            Ok(statement) => statement.until,
            // The reason may be the time. Whoever writes it to the store often is still answered
            // from here.
            Err(_) => self.at,
        };
        *self.store == *store && self.generation == generation && (self.at..=until).contains(&now)
    }
}

impl KeyStatementVerifier {
    /// Verifies by this trust and this clock.
    pub fn new(trust: TrustReader, clock: Clock) -> Self {
        Self {
            trust,
            clock,
            cached: Cache::new(CACHED_MAX),
            log: RateLimitedLog::default(),
        }
    }

    /// The keys, of those that were published in a store, by which tokens of their receivers are
    /// honoured. To be asked for again whenever the trust changes, and when others publish.
    pub fn token_keys(&self, store: &str, published: &[PublishedKey]) -> Vec<ForeignTokenKey> {
        let keys = published.iter().filter_map(|key| {
            self.with_statement(store, key, |statement| {
                ForeignTokenKey::new(statement.key.clone(), statement.until)
            })
            .ok()
        });
        keys.collect()
    }

    /// Calls `use_it` with the statement about a published key, if it is trusted now.
    pub(super) fn with_statement<T>(
        &self,
        store: &str,
        key: &PublishedKey,
        use_it: impl FnOnce(&KeyStatement) -> T,
    ) -> Result<T, KeyRefusal> {
        let judgement = self.judge(store, key);
        match &judgement.found {
            Ok(statement) if statement.key.kid() == key.id => Ok(use_it(statement)),
            Ok(_) => Err(KeyRefusal::KeyName),
            Err(refusal) => Err(refusal.clone()),
        }
    }

    fn judge(&self, store: &str, key: &PublishedKey) -> Arc<Judgement> {
        let (trust, now) = (self.trust.current(), (self.clock)());
        let generation = trust.generation();
        let text = key.statement.as_str();
        if let Some(cached) = self.cached.get(text)
            && cached.holds(store, generation, now)
        {
            return cached;
        }
        let found = KeyStatement::verify(&trust, store, text, now);
        match &found {
            Ok(statement) => {
                let (receiver, kid) = (&statement.receiver, statement.key.kid());
                tracing::debug!(%receiver, kid, "a receiver's key is trusted");
            }
            Err(refusal) => self.log.say(|unsaid| {
                let id = key.id.escape_debug().take(KID_CHARS).collect::<String>();
                tracing::warn!(kid = id, %refusal, unsaid, "a published key is not trusted");
            }),
        }
        let judgement = Arc::new(Judgement {
            store: store.into(),
            generation,
            at: now,
            found,
        });
        self.cached.insert(text.into(), judgement.clone());
        judgement
    }
}

/// How much of a name is logged: what a thumbprint has.
const KID_CHARS: usize = 43;

impl fmt::Debug for KeyStatementVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyStatementVerifier by {:?}", self.trust)
    }
}

impl GroupVerifier for KeyStatementVerifier {
    fn trusts(&self, store: &str, key: &PublishedKey) -> bool {
        self.with_statement(store, key, |_| ()).is_ok()
    }

    fn verify(
        &self,
        store: &str,
        key: &PublishedKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), GroupRefusal> {
        let has_signed = |statement: &KeyStatement| statement.has_signed(message, signature);
        match self.with_statement(store, key, has_signed) {
            Ok(true) => Ok(()),
            Ok(false) => Err(GroupRefusal::BadSignature),
            Err(_) => Err(GroupRefusal::UntrustedKey),
        }
    }
}
