//! Signatures of certificates that were verified before are not verified again.
//!
//! A machine that connects again shows the certificates that it showed before, and all machines
//! show that of the same authority. Whether a key has made a signature never changes: the same key,
//! bytes and signature give the same result for ever. What does change, such as validity, usage and
//! revocation, is checked each time. A signature that a machine makes in a handshake is made over
//! random bytes, and is never remembered.

use std::collections::HashSet;
use std::sync::{LazyLock, PoisonError, RwLock};

use aws_lc_rs::digest::{Context, SHA256};
use lizmon_pki::provider::provider;
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

type Digest = [u8; 32];

/// Once there are so many recent ones, those that were not asked for since the last time are
/// forgotten. Both sets take 9 MiB then.
const RECENT_MAX: usize = 1 << 16;

/// Of the whole process: reloads of certificates and CRLs do not change what is in it.
static KNOWN: LazyLock<KnownSignatures> = LazyLock::new(|| KnownSignatures::new(RECENT_MAX));

static REMEMBERING: LazyLock<Vec<Remembering>> = LazyLock::new(|| {
    let all = provider().signature_verification_algorithms.all.iter();
    all.map(|algorithm| Remembering {
        algorithm: *algorithm,
        known: &KNOWN,
    })
    .collect()
});

static ALGORITHMS: LazyLock<Vec<&dyn SignatureVerificationAlgorithm>> =
    LazyLock::new(|| REMEMBERING.iter().map(|one| one as _).collect());

/// The algorithms of TLS, for certificates alone.
pub(crate) fn algorithms() -> &'static [&'static dyn SignatureVerificationAlgorithm] {
    &ALGORITHMS
}

/// Digests of what was verified: each stands for algorithm, key, bytes and signature.
#[derive(Debug)]
struct KnownSignatures {
    recent_max: usize,
    generations: RwLock<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    recent: HashSet<Digest>,
    /// Those before them.
    earlier: HashSet<Digest>,
}

impl KnownSignatures {
    fn new(recent_max: usize) -> Self {
        Self {
            recent_max,
            generations: RwLock::default(),
        }
    }

    fn contains(&self, digest: &Digest) -> bool {
        let known = self.generations.read();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        if known.recent.contains(digest) {
            return true;
        }
        let is_earlier = known.earlier.contains(digest);
        drop(known);
        if is_earlier {
            self.insert(*digest);
        }
        is_earlier
    }

    fn insert(&self, digest: Digest) {
        let known = self.generations.write();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        if known.recent.len() >= self.recent_max {
            known.earlier = std::mem::take(&mut known.recent);
        }
        known.recent.insert(digest);
    }
}

/// An algorithm that remembers what it has found good.
#[derive(Debug)]
struct Remembering {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    known: &'static KnownSignatures,
}

impl Remembering {
    fn digest(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Digest {
        let (of_key, of_signature) = (self.public_key_alg_id(), self.signature_alg_id());
        let mut context = Context::new(&SHA256);
        for part in [
            of_key.as_ref(),
            of_signature.as_ref(),
            public_key,
            message,
            signature,
        ] {
            // With its length, so that no byte can move from one part to the next.
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

impl SignatureVerificationAlgorithm for Remembering {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let digest = self.digest(public_key, message, signature);
        if self.known.contains(&digest) {
            return Ok(());
        }
        self.algorithm
            .verify_signature(public_key, message, signature)?;
        self.known.insert(digest);
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }

    fn fips(&self) -> bool {
        self.algorithm.fips()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls_pki_types::alg_id;

    use super::*;

    /// Finds good what is signed with its key's bytes, and counts how often it is asked.
    #[derive(Debug)]
    struct Counting {
        of_key: AlgorithmIdentifier,
        asked: AtomicUsize,
    }

    impl SignatureVerificationAlgorithm for Counting {
        fn verify_signature(
            &self,
            public_key: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            match [public_key, message].concat() == signature {
                true => Ok(()),
                false => Err(InvalidSignature),
            }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            self.of_key
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA256
        }
    }

    fn remembering(
        known: &'static KnownSignatures,
        of_key: AlgorithmIdentifier,
    ) -> (Remembering, &'static Counting) {
        let algorithm: &'static Counting = Box::leak(Box::new(Counting {
            of_key,
            asked: AtomicUsize::new(0),
        }));
        (Remembering { algorithm, known }, algorithm)
    }

    fn known(recent_max: usize) -> &'static KnownSignatures {
        Box::leak(Box::new(KnownSignatures::new(recent_max)))
    }

    /// How often it was asked, after this was verified.
    fn asked(of: &(Remembering, &Counting), parts: [&str; 3], is_good: bool) -> usize {
        let [key, message, signature] = parts.map(str::as_bytes);
        let verified = of.0.verify_signature(key, message, signature);
        assert_eq!(verified.is_ok(), is_good, "{parts:?}");
        of.1.asked.load(Ordering::Relaxed)
    }

    #[test]
    fn only_the_same_is_known() {
        let known = known(100);
        let of = remembering(known, alg_id::ECDSA_P256);
        assert_eq!(asked(&of, ["key", "bytes", "keybytes"], true), 1);
        assert_eq!(asked(&of, ["key", "bytes", "keybytes"], true), 1);
        for (at, other) in [
            ["kez", "bytes", "keybytes"],
            ["key", "bytez", "keybytes"],
            ["key", "bytes", "keybytez"],
            ["ke", "bytes", "keybytes"],
            ["key", "byte", "keybytes"],
            ["key", "byteskeyb", "ytes"],
        ]
        .into_iter()
        .enumerate()
        {
            // What is refused is judged each time.
            assert_eq!(asked(&of, other, false), 2 * at + 2);
            assert_eq!(asked(&of, other, false), 2 * at + 3);
        }
        // The same bytes, divided differently.
        assert_eq!(asked(&of, ["keyb", "ytes", "keybytes"], true), 14);
        // By another algorithm.
        let of = remembering(known, alg_id::ECDSA_P384);
        assert_eq!(asked(&of, ["key", "bytes", "keybytes"], true), 1);
    }

    #[test]
    fn few_are_kept_those_that_are_asked_for() {
        let of = remembering(known(4), alg_id::ECDSA_P256);
        let verify = |at: usize| {
            let message = format!("{at}");
            asked(&of, ["key", &message, &format!("key{at}")], true)
        };
        for at in 0..40 {
            assert_eq!(verify(at), at + 1);
            assert_eq!(verify(0), at + 1);
        }
        assert_eq!(verify(38), 40);
        assert_eq!(verify(1), 41, "it was forgotten");
        let kept = of.0.known.generations.read().unwrap();
        assert!(kept.recent.len() <= 4 && kept.earlier.len() <= 4);
    }
}
