//! Statements, and what others make of them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use lizmon_pki::path::Usage;
use lizmon_protocol::name::Role;
use rcgen::PublicKeyData as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use super::*;
use crate::jws::JwsPublicKey;

const TYPE: &str = "lizmon-test+jwt";
const PAYLOAD: &[u8] = br#"{"a":1}"#;

/// A certificate with its key and issuers.
struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Pair {
    fn issue(ca: &Ca, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::with_key(ca, KeyPair::generate().unwrap(), edit)
    }

    fn with_key(ca: &Ca, key: KeyPair, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca.leaf_params("spiffe://lizmon.internal/receiver/ry", OTHER);
        edit(&mut params);
        let leaf = params.signed_by(&key, &ca.issuer).unwrap();
        let chain = vec![leaf.der().clone(), ca.certificate.der().clone()];
        Self { chain, key }
    }

    fn of(ca: &Ca, id: &str) -> Self {
        let san = vec![SanType::URI(id.try_into().unwrap())];
        Self::issue(ca, |params| params.subject_alt_names = san)
    }

    fn x5c(&self) -> Value {
        let encoded = self.chain.iter().map(|der| STANDARD.encode(der));
        encoded.collect()
    }

    fn header(&self) -> Value {
        json!({"alg": "ES256", "typ": TYPE, "x5c": self.x5c()})
    }

    fn sign(&self, header: &str) -> String {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let message = format!("{}.{}", part(header.as_bytes()), part(PAYLOAD));
        let private = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let key = JwsPublicKey::of_certificate(&self.chain[0]).unwrap();
        let signature = key.sign(&PrivateKeyDer::from(private), message.as_bytes());
        format!("{message}.{}", part(&signature.unwrap()))
    }

    /// A statement with a good signature, whatever its header says.
    fn state(&self, edit: impl FnOnce(&mut Value)) -> String {
        let mut header = self.header();
        edit(&mut header);
        self.sign(&header.to_string())
    }

    fn good(&self) -> String {
        self.state(|_| ())
    }
}

const OTHER: u8 = 9;

/// What becomes of a statement at the receiver of this house.
fn judge(house: &House, statement: &str) -> Result<(), StatementRefusal> {
    let (_writer, reader) = house.open().unwrap();
    let trust = reader.current();
    let verified = trust.verify_statement(TYPE, statement, NOW)?;
    assert_eq!(verified.payload, PAYLOAD);
    assert_eq!(verified.signer.spiffe_id.role, Role::Receiver);
    Ok(())
}

#[test]
fn a_receiver_signs_for_others_with_each_kind_of_key() {
    let house = House::new();
    let (_writer, judge) = house.open().unwrap();
    for (kind, alg) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, Some("ES256")),
        (&rcgen::PKCS_ECDSA_P384_SHA384, Some("ES384")),
        (&rcgen::PKCS_ED25519, Some("EdDSA")),
        (&rcgen::PKCS_RSA_SHA256, Some("RS256")),
        (&rcgen::PKCS_ECDSA_P521_SHA512, None),
    ] {
        let pair = Pair::with_key(&house.issuing, KeyPair::generate_for(kind).unwrap(), |_| ());
        let pem = |der: &CertificateDer<'_>| pem::encode(&pem::Pem::new("CERTIFICATE", &**der));
        house.write("rx.crt", &pair.chain.iter().map(pem).collect::<String>());
        house.write("rx.key", &pair.key.serialize_pem());
        let (_writer, signer) = house.open().unwrap();
        let signed = signer.current().sign_statement(TYPE, PAYLOAD);
        let Some(alg) = alg else {
            assert_eq!(signed, Err(StatementError::KeyKind));
            continue;
        };
        let signed = signed.unwrap();
        let verified = judge.current().verify_statement(TYPE, &signed, NOW);
        let verified = verified.unwrap();
        assert_eq!(verified.payload, PAYLOAD, "{alg}");
        assert_eq!(verified.signer, *signer.current().own(), "{alg}");
        let header = URL_SAFE_NO_PAD.decode(signed.split('.').next().unwrap());
        let header: Value = serde_json::from_slice(&header.unwrap()).unwrap();
        let expected = json!({"alg": alg, "typ": TYPE, "x5c": pair.x5c()});
        assert_eq!(header, expected, "and nothing else");
    }
}

#[test]
fn a_chain_that_is_too_long_is_told_to_its_owner() {
    let house = House::new();
    let (cert, key) = house
        .issuing
        .leaf("spiffe://lizmon.internal/receiver/rx", 1);
    let more = house.issuing.certificate.pem();
    for (count, is_good) in [(4, true), (5, false)] {
        house.write("rx.crt", &format!("{cert}{}", more.repeat(count)));
        house.write("rx.key", &key);
        let (_writer, reader) = house.open().unwrap();
        let signed = reader.current().sign_statement(TYPE, PAYLOAD);
        match is_good {
            true => assert_eq!(judge(&house, &signed.unwrap()), Ok(())),
            false => assert_eq!(signed, Err(StatementError::ChainTooLong(count + 2))),
        }
    }
    let too_long = vec![b'x'; STATEMENT_BYTES_MAX];
    house.write("rx.crt", &cert);
    let (_writer, reader) = house.open().unwrap();
    let signed = reader.current().sign_statement(TYPE, &too_long);
    assert_eq!(signed, Err(StatementError::TooLong));
}

#[test]
fn only_trusted_receivers_make_statements() {
    let house = House::new();
    let chain = |fault| Err(StatementRefusal::Signer(PeerRefusal::Chain(fault)));
    let issuing = &house.issuing;
    assert_eq!(judge(&house, &Pair::issue(issuing, |_| ()).good()), Ok(()));
    for role in Role::ALL {
        let pair = Pair::of(issuing, &format!("spiffe://lizmon.internal/{role}/ry"));
        let expected = match role {
            Role::Receiver => Ok(()),
            role => Err(StatementRefusal::OtherRole(role)),
        };
        assert_eq!(judge(&house, &pair.good()), expected, "{role}");
    }
    let client = Pair::issue(issuing, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let (member, usage) = (ChainMember::Leaf, Usage::Server);
    assert_eq!(
        judge(&house, &client.good()),
        chain(Fault::Purpose { member, usage })
    );
    let foreign = Pair::of(issuing, "spiffe://other.internal/receiver/ry");
    let judged = judge(&house, &foreign.good());
    let is_domain = |refusal| {
        matches!(
            refusal,
            StatementRefusal::Signer(PeerRefusal::OtherDomain { .. })
        )
    };
    assert!(judged.is_err_and(is_domain));
    // The names are the same, the keys are not.
    let stranger = root("root").issuing("issuing 1");
    let judged = judge(&house, &Pair::issue(&stranger, |_| ()).good());
    let is_chain = |refusal| matches!(refusal, StatementRefusal::Signer(PeerRefusal::Chain(fault)) if fault != Fault::Revoked(ChainMember::Leaf));
    assert!(judged.is_err_and(is_chain));
    let unnamed = Pair::issue(issuing, |params| params.subject_alt_names = Vec::new());
    let is_unnamed = |refusal| {
        matches!(
            refusal,
            StatementRefusal::Signer(PeerRefusal::NoIdentity(_))
        )
    };
    assert!(judge(&house, &unnamed.good()).is_err_and(is_unnamed));
}

#[test]
fn dates_and_revocations_end_it() {
    let house = House::new();
    let (mut writer, reader) = house.open().unwrap();
    let pair = Pair::issue(&house.issuing, |params| params.not_after = at(NOW + 60));
    let statement = pair.good();
    let verify = |now| reader.current().verify_statement(TYPE, &statement, now);
    let is_about_time =
        |refusal| matches!(refusal, StatementRefusal::Signer(refusal) if refusal.is_about_time());
    assert_eq!(verify(NOW).unwrap().until, NOW + 60);
    assert_eq!(verify(NOW + 60).unwrap().until, NOW + 60);
    assert!(verify(NOW + 61).is_err_and(is_about_time));
    assert!(verify(NOW - 2 * DAY).is_err_and(is_about_time));
    house
        .push(&mut writer, &house.issuing.crl(2, &[OTHER]))
        .unwrap();
    let fault = Fault::Revoked(ChainMember::Leaf);
    assert_eq!(
        verify(NOW).err(),
        Some(StatementRefusal::Signer(PeerRefusal::Chain(fault)))
    );
    // Verified as long as nothing that is shown beside it ends.
    let outlives = Pair::issue(&house.issuing, |params| {
        params.serial_number = Some(SerialNumber::from_slice(&[OTHER + 1]));
        params.not_after = at(NOW + 1001 * DAY);
    });
    let trust = reader.current();
    let verified = trust.verify_statement(TYPE, &outlives.good(), NOW);
    assert_eq!(verified.unwrap().until, NOW + 1000 * DAY);
}

/// The header decides nothing: what it may say is one thing, for each certificate.
#[test]
fn headers_of_another_shape_are_refused() {
    use StatementRefusal::{Certificates, Malformed, OtherAlgorithm, OtherType};
    let house = House::new();
    let pair = Pair::issue(&house.issuing, |_| ());
    let mallory = Pair::of(&house.issuing, "spiffe://lizmon.internal/node/mallory");
    let jwk =
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let certificates = |count: usize| Value::from(vec![pair.x5c()[0].clone(); count]);
    let set = |name: &'static str, value: Value| pair.state(|header| header[name] = value);
    let cases = [
        (set("alg", "none".into()), OtherAlgorithm),
        (set("alg", "HS256".into()), OtherAlgorithm),
        (set("alg", "ES384".into()), OtherAlgorithm),
        (set("alg", "EdDSA".into()), OtherAlgorithm),
        (set("alg", "es256".into()), OtherAlgorithm),
        (set("alg", Value::Null), Malformed),
        (set("typ", "at+jwt".into()), OtherType),
        (set("typ", "LIZMON-TEST+JWT".into()), OtherType),
        (set("typ", Value::Null), Malformed),
        (set("crit", json!(["exp"])), Malformed),
        (set("crit", json!([])), Malformed),
        (set("jwk", jwk), Malformed),
        (set("jku", "https://mallory.example/keys".into()), Malformed),
        (
            set("x5u", "https://mallory.example/chain".into()),
            Malformed,
        ),
        (set("x5t#S256", "AAAA".into()), Malformed),
        (set("kid", "mallory".into()), Malformed),
        (set("b64", false.into()), Malformed),
        (set("x5c", json!([])), Certificates(0)),
        (set("x5c", certificates(7)), Certificates(7)),
        (set("x5c", pair.x5c()[0].clone()), Malformed),
        (set("x5c", json!(["?"])), Malformed),
        (
            set("x5c", json!([URL_SAFE_NO_PAD.encode(&pair.chain[0])])),
            Malformed,
        ),
        (
            pair.state(|header| drop(header.as_object_mut().unwrap().remove("typ"))),
            Malformed,
        ),
        (
            pair.state(|header| drop(header.as_object_mut().unwrap().remove("x5c"))),
            Malformed,
        ),
    ];
    for (statement, expected) in cases {
        assert_eq!(judge(&house, &statement), Err(expected), "{statement}");
    }
    // Each member is there once: which of two counts would be a matter of the reader.
    let (own, others) = (pair.x5c(), mallory.x5c());
    for header in [
        format!(r#"{{"alg":"ES256","alg":"none","typ":"{TYPE}","x5c":{own}}}"#),
        format!(r#"{{"alg":"ES256","typ":"{TYPE}","x5c":{own},"x5c":{others}}}"#),
        format!(r#"{{"alg":"ES256","typ":"at+jwt","typ":"{TYPE}","x5c":{own}}}"#),
        format!(r#"{{"alg":"ES256","typ":"{TYPE}","x5c":{own}}}{{}}"#),
    ] {
        assert_eq!(judge(&house, &pair.sign(&header)), Err(Malformed));
    }
}

#[test]
fn signatures_of_others_are_refused() {
    use StatementRefusal::{Malformed, OtherAlgorithm, Signature, TooLong};
    let house = House::new();
    let pair = Pair::issue(&house.issuing, |_| ());
    let mallory = Pair::of(&house.issuing, "spiffe://lizmon.internal/node/mallory");
    let good = pair.good();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    // The public key as the secret of an HMAC.
    let hs256 = {
        let mut stated = pair.header();
        stated["alg"] = "HS256".into();
        let message = format!("{}.{payload}", part(stated.to_string().as_bytes()));
        let secret = aws_lc_rs::hmac::Key::new(
            aws_lc_rs::hmac::HMAC_SHA256,
            &pair.key.subject_public_key_info(),
        );
        let tag = aws_lc_rs::hmac::sign(&secret, message.as_bytes());
        format!("{message}.{}", part(tag.as_ref()))
    };
    let none = {
        let mut stated = pair.header();
        stated["alg"] = "none".into();
        format!("{}.{payload}.", part(stated.to_string().as_bytes()))
    };
    let asn1 = {
        let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let number = |bytes: &[u8]| [&[2, 33, 0][..], bytes].concat();
        let both = [number(&bytes[..32]), number(&bytes[32..])].concat();
        [&[0x30, both.len() as u8][..], &both].concat()
    };
    let another = pair.good();
    let (_, anothers) = another.rsplit_once('.').unwrap();
    let huge = "A".repeat(STATEMENT_BYTES_MAX);
    let cases = [
        (
            mallory.state(|header| header["x5c"] = pair.x5c()),
            Signature,
            "the chain of one, the signature of another",
        ),
        (format!("{message}.{anothers}x"), Malformed, "a letter more"),
        (
            format!("{header}.{}.{signature}", part(b"{}")),
            Signature,
            "another payload",
        ),
        (
            format!("{message}.{}", part(&[0; 64])),
            Signature,
            "zeros: CVE-2022-21449",
        ),
        (format!("{message}."), Signature, "none at all"),
        (
            format!("{message}.{}", part(&asn1)),
            Signature,
            "another encoding",
        ),
        (none, OtherAlgorithm, "alg none"),
        (hs256, OtherAlgorithm, "the public key as a secret"),
        (format!("{good}="), Malformed, "padded"),
        (format!("{good}\n"), Malformed, "a line"),
        (format!("{good}.{signature}"), Malformed, "four parts"),
        (message.to_owned(), Malformed, "two parts"),
        (String::new(), Malformed, "empty"),
        (
            json!({"payload": payload, "protected": header, "signature": signature}).to_string(),
            Malformed,
            "not in compact form",
        ),
        (
            format!("{message}.{huge}"),
            TooLong(message.len() + 1 + huge.len()),
            "too long",
        ),
    ];
    for (statement, expected, story) in cases {
        assert_eq!(judge(&house, &statement), Err(expected), "{story}");
    }
    assert_eq!(judge(&house, &good), Ok(()));
}

/// An ECDSA signature has a twin that is as good: `s` and `-s`. It is over the same bytes, so
/// nobody gains by it; it must only not be mistaken for something new.
#[test]
fn a_rewritten_signature_says_the_same() {
    /// The order of P-256: SEC 2 section 2.4.2.
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let house = House::new();
    let good = Pair::issue(&house.issuing, |_| ()).good();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let digit = i16::from(ORDER[at]) - i16::from(signature[32 + at]) - borrow;
        borrow = i16::from(digit < 0);
        signature[32 + at] = digit.rem_euclid(256) as u8;
    }
    let twin = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    assert_ne!(twin, good);
    assert_eq!(judge(&house, &twin), Ok(()));
}
