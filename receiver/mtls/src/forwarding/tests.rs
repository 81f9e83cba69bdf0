use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;

use super::*;

fn der() -> Vec<u8> {
    let params = rcgen::CertificateParams::default();
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    certificate.der().to_vec()
}

fn sequence(bytes: &[u8]) -> String {
    format!(":{}:", STANDARD.encode(bytes))
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).unwrap()
}

#[test]
fn what_client_cert_is() {
    let der = der();
    let good = sequence(&der);
    assert_eq!(certificate(&value(&good)).unwrap().as_ref(), der);
    let base64 = STANDARD.encode(&der);
    let pem = format!("-----BEGIN CERTIFICATE-----{base64}-----END CERTIFICATE-----");
    let twice = [&der[..], &der].concat();
    for bad in [
        "",
        "::",
        ":",
        "::::",
        base64.as_str(),
        &format!("\"{base64}\""),
        &format!(":{base64}"),
        &format!("{good}, {good}"),
        &format!("({good})"),
        &format!("{good};a"),
        &format!("{good} x"),
        &pem,
        &sequence(pem.as_bytes()),
        &sequence(&der[1..]),
        &sequence(&der[..der.len() - 1]),
        &sequence(&twice),
        &good
            .replace('+', "-")
            .replace('/', "_")
            .replacen(':', ":%", 1),
        "?1",
        "subject=web1",
    ] {
        let got = certificate(&value(bad));
        assert!(
            matches!(got, Err(ForwardingError::Malformed(..))),
            "{bad}: {got:?}"
        );
    }
}

#[test]
fn what_a_chain_is() {
    let (one, other) = (der(), der());
    let list = |each: &[&Vec<u8>]| {
        let each: Vec<_> = each.iter().map(|der| sequence(der)).collect();
        each.join(", ")
    };
    for (text, expected) in [
        (list(&[&one]), 1),
        (list(&[&one, &other]), 2),
        (
            list(&[&one; CHAIN_CERTIFICATES_MAX]),
            CHAIN_CERTIFICATES_MAX,
        ),
    ] {
        assert_eq!(authorities(&value(&text)).unwrap().len(), expected);
    }
    for bad in [
        list(&[&one; CHAIN_CERTIFICATES_MAX + 1]),
        list(&[&one, &b"x".to_vec()]),
        format!("({})", list(&[&one])),
        "1".to_owned(),
        format!("{},", list(&[&one])),
    ] {
        assert!(authorities(&value(&bad)).is_err(), "{bad}");
    }
}

/// What the client sent itself comes first, and is not believed.
#[test]
fn the_last_address_is_the_clients() {
    for (lines, expected) in [
        (&[][..], Ok(None)),
        (&["192.0.2.7"][..], Ok(Some("192.0.2.7"))),
        (&["203.0.113.9, 192.0.2.7"][..], Ok(Some("192.0.2.7"))),
        (
            &["203.0.113.9", "unknown,192.0.2.7 "][..],
            Ok(Some("192.0.2.7")),
        ),
        (&["2001:db8::7"][..], Ok(Some("2001:db8::7"))),
        (&["::ffff:192.0.2.7"][..], Ok(Some("192.0.2.7"))),
        (&["192.0.2.7:443"][..], Err(())),
        (&["192.0.2.7,"][..], Err(())),
        (&["unknown"][..], Err(())),
        (&[""][..], Err(())),
    ] {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, value(line));
        }
        let got = client_address(&headers)
            .map(|address| address.map(|ip| ip.to_string()))
            .map_err(drop);
        assert_eq!(got, expected.map(|ip| ip.map(str::to_owned)), "{lines:?}");
    }
}

#[test]
fn a_doubled_header_is_refused() {
    let mut headers = HeaderMap::new();
    assert_eq!(single(&headers, &CLIENT_CERT), Ok(None));
    headers.append(CLIENT_CERT, value("a"));
    assert_eq!(single(&headers, &CLIENT_CERT), Ok(Some(&value("a"))));
    headers.append(CLIENT_CERT, value("a"));
    let repeated = ForwardingError::Repeated("Client-Cert");
    assert_eq!(single(&headers, &CLIENT_CERT), Err(repeated));
}

#[test]
fn certificate_and_chain_are_kept_together() {
    let (a, b) = (value("a"), value("b"));
    let keys = [
        cache_key(&a, None),
        cache_key(&b, None),
        cache_key(&a, Some(&b)),
        cache_key(&value("ab"), None),
    ];
    for (at, key) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(key), "{at}");
    }
}
