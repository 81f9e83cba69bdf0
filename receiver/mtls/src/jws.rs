//! JWS signatures by the keys of certificates: RFC 7518 section 3, RFC 8037 section 3.1.
//!
//! A key has one algorithm here, so what a JWS says of its algorithm chooses nothing: it is only
//! compared.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rustls_pki_types::PrivateKeyDer;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

/// The algorithms of the keys that our CA certifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Es256,
    Es384,
    EdDsa,
    Rs256,
}

impl Algorithm {
    fn of(key: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let algorithm = &key.algorithm.algorithm;
        if *algorithm == OID_SIG_ED25519 {
            return Some(Self::EdDsa);
        }
        if *algorithm == OID_PKCS1_RSAENCRYPTION {
            return Some(Self::Rs256);
        }
        if *algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return None;
        }
        let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
        if curve == OID_EC_P256 {
            Some(Self::Es256)
        } else if curve == OID_NIST_EC_P384 {
            Some(Self::Es384)
        } else {
            None
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Es256 => &ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &ECDSA_P384_SHA384_FIXED,
            Self::EdDsa => &ED25519,
            Self::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        }
    }
}

/// The public key of a certificate, as it verifies a JWS.
#[derive(Debug)]
pub(crate) struct JwsPublicKey {
    algorithm: Algorithm,
    key: Vec<u8>,
}

impl JwsPublicKey {
    /// `None` if the certificate's key is of another kind.
    pub(crate) fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let key = certificate.public_key();
        Some(Self {
            algorithm: Algorithm::of(key)?,
            key: key.subject_public_key.data.to_vec(),
        })
    }

    /// The value of `alg`.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::EdDsa => "EdDSA",
            Algorithm::Rs256 => "RS256",
        }
    }

    /// Whether this key signed the message.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm.verification(), &self.key)
            .verify(message, signature)
            .is_ok()
    }

    /// Signs a message with the private key that belongs to this one. `None` if it does not.
    pub(crate) fn sign(&self, private: &PrivateKeyDer<'_>, message: &[u8]) -> Option<Vec<u8>> {
        let signature = match self.algorithm {
            Algorithm::Es256 => sign_ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, private, message),
            Algorithm::Es384 => sign_ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, private, message),
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::from_pkcs8(private.secret_der()).ok()?;
                Some(pair.try_sign(message).ok()?.as_ref().to_vec())
            }
            Algorithm::Rs256 => sign_rsa(private, message),
        }?;
        self.has_signed(message, &signature).then_some(signature)
    }
}

fn sign_ecdsa(
    algorithm: &'static EcdsaSigningAlgorithm,
    private: &PrivateKeyDer<'_>,
    message: &[u8],
) -> Option<Vec<u8>> {
    let pair = EcdsaKeyPair::from_private_key_der(algorithm, private.secret_der()).ok()?;
    let signature = pair.sign(&SystemRandom::new(), message).ok()?;
    Some(signature.as_ref().to_vec())
}

fn sign_rsa(private: &PrivateKeyDer<'_>, message: &[u8]) -> Option<Vec<u8>> {
    let pair = match private {
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
        other => RsaKeyPair::from_pkcs8(other.secret_der()),
    };
    let pair = pair.ok()?;
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        message,
        &mut signature,
    )
    .ok()?;
    Some(signature)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
        PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
    };
    use rustls_pki_types::PrivatePkcs8KeyDer;

    use super::*;

    fn certificate(key: &KeyPair) -> Vec<u8> {
        let certificate = CertificateParams::default().self_signed(key).unwrap();
        certificate.der().to_vec()
    }

    #[test]
    fn each_kind_of_key_signs_with_its_one_algorithm() {
        let other = KeyPair::generate().unwrap();
        for (kind, expected) in [
            (&PKCS_ECDSA_P256_SHA256, Some(("ES256", 64))),
            (&PKCS_ECDSA_P384_SHA384, Some(("ES384", 96))),
            (&PKCS_ED25519, Some(("EdDSA", 64))),
            (&PKCS_RSA_SHA256, Some(("RS256", 256))),
            (&PKCS_ECDSA_P521_SHA512, None),
        ] {
            let key = KeyPair::generate_for(kind).unwrap();
            let public = JwsPublicKey::of_certificate(&certificate(&key));
            assert_eq!(public.is_some(), expected.is_some(), "{kind:?}");
            let (Some(public), Some((name, length))) = (public, expected) else {
                continue;
            };
            let private = |key: &KeyPair| PrivatePkcs8KeyDer::from(key.serialize_der()).into();
            let signature = public.sign(&private(&key), b"message").unwrap();
            assert_eq!((public.algorithm(), signature.len()), (name, length));
            assert!(public.has_signed(b"message", &signature), "{name}");
            assert!(!public.has_signed(b"messages", &signature), "{name}");
            assert!(!public.has_signed(b"message", &signature[1..]), "{name}");
            let by_another = public.sign(&private(&other), b"message");
            assert_eq!(by_another, None, "{name}: not this certificate's key");
        }
    }
}
