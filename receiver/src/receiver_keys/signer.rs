//! Publishes our token key, and signs groups with it.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
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
    /// Judges our own statement as others will.
    verifier: Arc<KeyStatementVerifier>,
    present: ArcSwapOption<OwnStatement>,
    log: RateLimitedLog,
}

/// Our statement, and what it is made of.
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
            present: ArcSwapOption::empty(),
            log: RateLimitedLog::default(),
        })
    }

    /// The statement about the key that signs now, signed again only if that key or our
    /// certificate is another.
    fn present(&self, store: &str) -> Option<Arc<OwnStatement>> {
        let trust = self.verifier.trust.current();
        let (key, chain) = (self.tokens.signing_key()?, trust.own_chain());
        let present = self.present.load_full();
        if let Some(present) = present.filter(|present| present.is_of(store, &key, chain)) {
            return Some(present);
        }
        let now = (self.verifier.clock)();
        let signed = statement::sign(&trust, store, &key, now);
        let statement = signed.map_err(|error| {
            self.log.say(|unsaid| {
                tracing::error!(%error, unsaid, "the token key cannot be published");
            });
        });
        let present = Arc::new(OwnStatement {
            store: store.into(),
            chain: chain.to_vec(),
            published: PublishedKey {
                id: key.kid().to_owned(),
                statement: statement.ok()?,
            },
        });
        self.present.store(Some(present.clone()));
        Some(present)
    }
}

impl fmt::Debug for ReceiverKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReceiverKeys of {:?}", self.verifier)
    }
}

impl GroupSigner for ReceiverKeys {
    fn key(&self, store: &str) -> Option<PublishedKey> {
        let published = &self.present(store)?.published;
        let is_trusted = self
            .verifier
            .with_statement(store, published, |_| ())
            .is_ok();
        is_trusted.then(|| published.clone())
    }

    fn sign(&self, key: &str, message: &[u8]) -> Option<Vec<u8>> {
        self.tokens.sign(key, message)
    }
}
