//! Attackers' tools: certificates that no CA of ours issues, tokens that no receiver mints.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lizmon_mtls::identity::Identity;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, CustomExtension, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::raw::Shown;
use super::world::{World, wall_clock};

/// Signs arbitrary leaf certificates.
pub(crate) struct Forger {
    issuer: Issuer<'static, KeyPair>,
    chain: Vec<CertificateDer<'static>>,
}

impl Forger {
    /// With the stolen key of the world's issuing CA: only the profile of its certificates is
    /// wrong.
    pub(crate) fn with_issuing_key(world: &World) -> Self {
        let certs = world.certs();
        let key = std::fs::read_to_string(certs.join("issuing.key")).expect("the key is there");
        let der = CertificateDer::from_pem_file(certs.join("issuing.crt")).expect("a certificate");
        let key = KeyPair::from_pem(&key).expect("a PKCS#8 key");
        let issuer = Issuer::from_ca_cert_der(&der, key).expect("a CA's certificate");
        Self {
            issuer,
            chain: vec![der],
        }
    }

    /// With the key of a leaf certificate, as if that were a CA.
    pub(crate) fn with_leaf_key(shown: &Shown) -> Self {
        let key = KeyPair::try_from(shown.key.secret_der()).expect("a PKCS#8 key");
        let issuer = Issuer::from_ca_cert_der(&shown.chain[0], key).expect("a certificate");
        Self {
            issuer,
            chain: shown.chain.clone(),
        }
    }

    /// Another CA with the same names as the world's.
    pub(crate) fn with_same_names(world: &World) -> Self {
        let der = CertificateDer::from_pem_file(world.certs().join("issuing.crt"))
            .expect("a certificate");
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_ca_cert_der(&der, key).expect("a CA's certificate");
        Self {
            issuer,
            chain: vec![der],
        }
    }

    /// A leaf certificate like ours, changed by `edit`.
    pub(crate) fn leaf(&self, id: &str, edit: impl FnOnce(&mut CertificateParams)) -> Shown {
        let key = KeyPair::generate().expect("a key");
        let mut params = leaf_params(id);
        edit(&mut params);
        let leaf = params
            .signed_by(&key, &self.issuer)
            .expect("it can be signed");
        let mut chain = vec![leaf.der().clone()];
        chain.extend(self.chain.iter().cloned());
        Shown {
            chain,
            key: key.serialize_der().try_into().expect("PKCS#8"),
        }
    }

    /// A CRL in PEM with this number that revokes these certificates, valid for a day from now.
    pub(crate) fn revocation_list(&self, leaves: &[&[u8]], number: u64) -> Vec<u8> {
        let now = OffsetDateTime::from_unix_timestamp(wall_clock() as i64).expect("a time");
        let revoked = leaves.iter().map(|leaf| {
            let identity = Identity::from_der(leaf).expect("a certificate of ours");
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(&identity.serial),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            }
        });
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::days(1),
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).expect("it can be signed");
        signed.pem().expect("PEM").into()
    }
}

/// A self-signed certificate.
pub(crate) fn self_signed(id: &str) -> Shown {
    let key = KeyPair::generate().expect("a key");
    let leaf = leaf_params(id).self_signed(&key).expect("it can be signed");
    Shown {
        chain: vec![leaf.der().clone()],
        key: key.serialize_der().try_into().expect("PKCS#8"),
    }
}

fn leaf_params(id: &str) -> CertificateParams {
    let now = OffsetDateTime::from_unix_timestamp(wall_clock() as i64).expect("a time");
    let mut params = CertificateParams::default();
    params.not_before = now - Duration::hours(2);
    params.not_after = now + Duration::days(1);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![uri(id)];
    params
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("a URI is ASCII"))
}

/// A second subject alternative name extension, with this URI.
pub(crate) fn second_san(text: &str) -> CustomExtension {
    let length = u8::try_from(text.len()).expect("a short URI");
    let mut content = vec![0x30, length + 2, 0x86, length];
    content.extend_from_slice(text.as_bytes());
    CustomExtension::from_oid_content(&[2, 5, 29, 17], content)
}

/// A parsed token that can be changed and signed again.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) header: Value,
    pub(crate) claims: Value,
    pub(crate) signature: String,
}

impl Token {
    pub(crate) fn parse(token: &str) -> Self {
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            panic!("a JWS has three parts");
        };
        Self {
            header: decode(header),
            claims: decode(claims),
            signature: signature.to_owned(),
        }
    }

    /// Changes its lifetime: issued at `from`, expires at `to`.
    pub(crate) fn lives(&mut self, from: u64, to: u64) {
        for (claim, at) in [("iat", from), ("nbf", from), ("exp", to)] {
            self.claims[claim] = json!(at);
        }
    }

    /// The current header and claims with the original signature.
    pub(crate) fn unsigned(&self) -> String {
        format!("{}.{}", self.message(), self.signature)
    }

    /// The current header and claims, signed again.
    pub(crate) fn signed(&self, key: &Ed25519KeyPair) -> String {
        let message = self.message();
        let signature = key.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The same, signed with a symmetric key.
    pub(crate) fn signed_hs256(&self, secret: &[u8]) -> String {
        let message = self.message();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    fn message(&self) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", part(&self.header), part(&self.claims))
    }
}

fn decode(part: &str) -> Value {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .expect("base64url without padding");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The receiver's token key, as stolen from its data folder.
pub(crate) fn stolen_token_key(world: &World) -> Ed25519KeyPair {
    let text = std::fs::read(world.data().join("token-keys.json")).expect("the key file");
    let keys: Value = serde_json::from_slice(&text).expect("JSON");
    let newest = keys.as_array().and_then(|keys| keys.last()).expect("a key");
    let pkcs8 = newest["pkcs8"].as_str().expect("a key");
    let pkcs8 = URL_SAFE_NO_PAD.decode(pkcs8).expect("base64url");
    Ed25519KeyPair::from_pkcs8(&pkcs8).expect("an Ed25519 key")
}

/// A key of the attacker, and its public key as a JWK.
pub(crate) fn own_token_key() -> (Ed25519KeyPair, Value) {
    use aws_lc_rs::signature::KeyPair as _;
    let key = Ed25519KeyPair::generate().expect("a key");
    let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
    (
        key,
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "alg": "EdDSA", "use": "sig"}),
    )
}
