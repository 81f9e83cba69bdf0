//! Publishes our token key, and signs groups with it.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use lizmon_mtls::rate_limited_log::RateLimitedLog;
use lizmon_mtls::trust::StatementError;
use rustls_pki_types::CertificateDer;

use super::statement;
use super::verifier::KeyStatementVerifier;
use crate::store::signing::{GroupSigner, PublishedKey};
use crate::token::{TokenPublicKey, Tokens};

/// The keys that tokens are signed with, as keys of a shared store.
pub struct ReceiverKeys {
    tokens: Arc<Tokens>,
    /// Judges our own statements as others will.
    verifier: Arc<KeyStatementVerifier>,
    /// Of each of our keys the newest statement.
    statements: ArcSwap<Vec<Arc<OwnStatement>>>,
    log: RateLimitedLog,
}

/// Our statement, and what it is made of.
#[derive(Debug)]
struct OwnStatement {
    store: Box<str>,
    chain: Vec<CertificateDer<'static>>,
    published: PublishedKey,
}

impl OwnStatement {
    fn is_of(&self, store: &str, key: &TokenPublicKey, chain: &[CertificateDer<'static>]) -> bool {
        *self.store == *store && self.published.id == key.kid() && self.chain == chain
    }
}

impl ReceiverKeys {
    /// Fails if our certificate's key, or its chain, cannot be used for statements.
    pub fn open(
        tokens: Arc<Tokens>,
        verifier: Arc<KeyStatementVerifier>,
    ) -> Result<Self, StatementError> {
        verifier
            .trust
            .current()
            .sign_statement(statement::TYPE, b"")?;
        Ok(Self {
            tokens,
            verifier,
            statements: ArcSwap::default(),
            log: RateLimitedLog::default(),
        })
    }

    /// All our token keys, as others will trust them: by these they honour our tokens.
    pub fn published(&self, store: &str) -> Vec<PublishedKey> {
        let keys = self.tokens.own_keys();
        let published = keys
            .iter()
            .filter_map(|key| self.trusted_statement(store, key));
        published.collect()
    }

    /// The statement about one of our keys, if others would trust it.
    fn trusted_statement(&self, store: &str, key: &TokenPublicKey) -> Option<PublishedKey> {
        let published = &self.statement(store, key)?.published;
        let judged = self.verifier.with_statement(store, published, |_| ());
        judged.is_ok().then(|| published.clone())
    }

    /// The statement about one of our keys, signed again only if our certificate is another.
    fn statement(&self, store: &str, key: &TokenPublicKey) -> Option<Arc<OwnStatement>> {
        let trust = self.verifier.trust.current();
        let chain = trust.own_chain();
        let known = self.statements.load();
        if let Some(known) = known.iter().find(|one| one.is_of(store, key, chain)) {
            return Some(known.clone());
        }
        let now = (self.verifier.clock)();
        let signed = statement::sign(&trust, store, key, now);
        let statement = signed.map_err(|error| {
            self.log.say(|unsaid| {
                tracing::error!(%error, unsaid, "the token key cannot be published");
            });
        });
        let signed = Arc::new(OwnStatement {
            store: store.into(),
            chain: chain.to_vec(),
            published: PublishedKey {
                id: key.kid().to_owned(),
                statement: statement.ok()?,
            },
        });
        let own = self.tokens.own_keys();
        let is_kept = |one: &&Arc<OwnStatement>| {
            let id = &one.published.id;
            id != key.kid() && own.iter().any(|key| key.kid() == id)
        };
        // Two threads may do this at once. What one of them loses is signed once more.
        let kept = known.iter().filter(is_kept).cloned();
        let statements = kept.chain([signed.clone()]).collect();
        self.statements.store(Arc::new(statements));
        Some(signed)
    }
}

impl fmt::Debug for ReceiverKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReceiverKeys of {:?}", self.verifier)
    }
}

impl GroupSigner for ReceiverKeys {
    fn key(&self, store: &str) -> Option<PublishedKey> {
        let key = self.tokens.signing_key((self.verifier.clock)())?;
        self.trusted_statement(store, &key)
    }

    fn sign(&self, key: &str, message: &[u8]) -> Option<Vec<u8>> {
        self.tokens.sign(key, message)
    }
}
