use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lizmon_protocol::name::Attributes;
use lizmon_protocol::token::Confirmation;

fn identity(id: &str, thumbprint: u8) -> Identity {
    Identity {
        spiffe_id: id.parse().unwrap(),
        attributes: Attributes::default(),
        serial: Box::new([1]),
        thumbprint: [thumbprint; 32],
        not_before: 0,
        not_after: 9,
    }
}

fn claims(id: &str, thumbprint: u8, scope: &str) -> Arc<Claims> {
    let client_id: lizmon_protocol::name::SpiffeId = id.parse().unwrap();
    Arc::new(Claims {
        iss: String::new(),
        aud: String::new(),
        sub: client_id.name.clone(),
        client_id,
        scope: scope.parse().unwrap(),
        iat: 0,
        nbf: 0,
        exp: 9,
        jti: String::new(),
        cnf: Confirmation {
            x5t_s256: URL_SAFE_NO_PAD.encode([thumbprint; 32]),
        },
    })
}

fn untagged(_host: &NodeName) -> BTreeSet<Tag> {
    BTreeSet::new()
}

const NODE_A: &str = "spiffe://d/node/a";
const NODE_B: &str = "spiffe://d/node/b";
const READER_A: &str = "spiffe://d/reader/a";
const OPERATOR: &str = "spiffe://d/operator/o";

/// What `(ingest a, read a, read b, list, administer, list certificates)` come to.
fn outcomes(
    certificate: &str,
    token: &str,
    scope: &str,
) -> Result<[Option<AuthorizeError>; 6], AuthorizeError> {
    let identity = identity(certificate, 1);
    let claims = claims(token, 1, scope);
    let caller = Caller::new(&identity, &claims)?;
    let [a, b] = ["a", "b"].map(|name| name.parse().ok());
    Ok([
        caller.ingest(a.as_ref(), untagged).err(),
        caller.read_host(a.as_ref(), untagged).err(),
        caller.read_host(b.as_ref(), untagged).err(),
        caller.list_hosts().err(),
        caller.administer().err(),
        caller.list_certificates().err(),
    ])
}

/// Whose series a certificate's holder sees with a token of this scope: of a, of b.
#[test]
fn a_node_reads_its_own_series_alone() {
    for (holder, scope, expected) in [
        (NODE_A, "metrics:write", Some([true, false])),
        (NODE_B, "metrics:write", Some([false, true])),
        (NODE_A, "metrics:read admin", Some([true, false])),
        (READER_A, "metrics:read", Some([true, true])),
        (OPERATOR, "metrics:read admin", Some([true, true])),
        (READER_A, "metrics:write", None),
        (OPERATOR, "admin", None),
    ] {
        let (identity, claims) = (identity(holder, 1), claims(holder, 1, scope));
        let caller = Caller::new(&identity, &claims).unwrap();
        let permit = caller.read_series().ok();
        let seen = permit.map(|permit| ["a", "b"].map(|host| permit.sees(host, &BTreeSet::new())));
        assert_eq!(seen, expected, "{holder} {scope}");
    }
}

#[test]
fn every_role_may_do_its_own_and_nothing_else() {
    let [read, write, admin] = [Scope::MetricsRead, Scope::MetricsWrite, Scope::Admin]
        .map(|scope| move || Some(AuthorizeError::InsufficientScope(scope)));
    let wrong = |subject: &str| {
        let subject = subject.parse().unwrap();
        Some(AuthorizeError::WrongHost { subject })
    };
    let cases = [
        (
            NODE_A,
            NODE_A,
            "metrics:write",
            Ok([None, None, wrong("a"), read(), admin(), admin()]),
        ),
        (
            NODE_B,
            NODE_B,
            "metrics:write",
            Ok([wrong("b"), wrong("b"), None, read(), admin(), admin()]),
        ),
        (
            READER_A,
            READER_A,
            "metrics:read",
            Ok([write(), None, None, None, admin(), admin()]),
        ),
        (
            OPERATOR,
            OPERATOR,
            "metrics:read admin",
            Ok([write(), None, None, None, None, None]),
        ),
        // A token that claims more than its holder's role.
        (
            NODE_A,
            NODE_A,
            "metrics:read admin",
            Ok([write(), None, wrong("a"), read(), admin(), admin()]),
        ),
        (
            READER_A,
            READER_A,
            "metrics:write",
            Ok([write(), read(), read(), read(), admin(), admin()]),
        ),
        // A token of another client, though bound to this very certificate.
        (
            NODE_A,
            NODE_B,
            "metrics:write",
            Err(AuthorizeError::CertificateMismatch),
        ),
        (
            NODE_A,
            READER_A,
            "metrics:read",
            Err(AuthorizeError::CertificateMismatch),
        ),
        (
            READER_A,
            NODE_A,
            "metrics:write",
            Err(AuthorizeError::CertificateMismatch),
        ),
    ];
    for (certificate, token, scopes, expected) in cases {
        assert_eq!(
            outcomes(certificate, token, scopes),
            expected,
            "{certificate} with {token} {scopes}"
        );
    }
}

#[test]
fn a_token_of_another_certificate_is_refused() {
    let refused =
        Caller::new(&identity(NODE_A, 1), &claims(NODE_A, 2, "metrics:write")).unwrap_err();
    assert_eq!(refused, AuthorizeError::CertificateMismatch);
}

#[test]
fn metrics_and_page_are_for_who_may_read_by_certificate_alone() {
    for (id, expected) in [
        (
            NODE_A,
            Some(AuthorizeError::InsufficientScope(Scope::MetricsRead)),
        ),
        (READER_A, None),
        (OPERATOR, None),
        (
            "spiffe://d/receiver/r",
            Some(AuthorizeError::InsufficientScope(Scope::MetricsRead)),
        ),
        (
            "spiffe://d/ca/c",
            Some(AuthorizeError::InsufficientScope(Scope::MetricsRead)),
        ),
    ] {
        let refused = read_metrics(&identity(id, 1)).err();
        assert_eq!(refused, expected, "{id}");
        let refused = view_page(&identity(id, 1)).err();
        assert_eq!(refused, expected, "the page, {id}");
    }
}

/// The scope is that of the connection's certificate, on every request.
#[test]
fn a_limited_reader_reads_its_hosts_and_no_others() {
    let mut identity = identity(READER_A, 1);
    identity.attributes = Attributes::of_texts(["web*", "env=prod"].into_iter()).unwrap();
    let claims = claims(READER_A, 1, "metrics:read");
    let caller = Caller::new(&identity, &claims).unwrap();
    let tags_of = |host: &NodeName| match host.as_str() {
        "web1" | "db1" => BTreeSet::from(["env=prod".parse().unwrap()]),
        _ => BTreeSet::new(),
    };
    for (name, refused) in [
        ("web1", None),
        ("web2", Some(AuthorizeError::OutsideHostScope)),
        ("db1", Some(AuthorizeError::OutsideHostScope)),
        ("unknown", Some(AuthorizeError::OutsideHostScope)),
        ("no host", Some(AuthorizeError::OutsideHostScope)),
    ] {
        let host: Option<NodeName> = name.parse().ok();
        let permit = caller.read_host(host.as_ref(), tags_of);
        assert_eq!(permit.err(), refused, "{name}");
    }
    let list = caller.list_hosts().unwrap();
    assert!(list.scope().is_limited());
    assert!(list.sees("web1", &BTreeSet::from(["env=prod".parse().unwrap()])));
    assert!(!list.sees("web2", &BTreeSet::new()));
    let metrics = read_metrics(&identity).unwrap();
    assert_eq!(metrics.scope().limits(), ["web*", "env=prod"]);
}

#[test]
fn a_gateway_writes_for_the_hosts_of_its_certificate_and_no_others() {
    const GATEWAY: &str = "spiffe://d/gateway/web1";
    let tags_of = |host: &NodeName| match host.as_str() {
        "web1" | "db1" => BTreeSet::from(["env=prod".parse().unwrap()]),
        _ => BTreeSet::new(),
    };
    let outside = || {
        let gateway = "web1".parse().unwrap();
        Some(AuthorizeError::OutsideGateway { gateway })
    };
    for (limits, hosts) in [
        (&["web*"][..], &["web1", "web2"][..]),
        (&["web?", "db1"], &["web1", "web2", "db1"]),
        (&["*"], &["web1", "web2", "db1", "unknown"]),
        (&["*", "env=prod"], &["web1", "db1"]),
        (&["web*", "env=prod"], &["web1"]),
        // No CA of ours issues these.
        (&["env=prod"], &[]),
        (&[], &[]),
    ] {
        let mut identity = identity(GATEWAY, 1);
        identity.attributes = Attributes::of_texts(limits.iter().copied()).unwrap();
        let claims = claims(GATEWAY, 1, "metrics:write");
        let caller = Caller::new(&identity, &claims).unwrap();
        for name in ["web1", "web2", "db1", "unknown", "no host"] {
            let host: Option<NodeName> = name.parse().ok();
            let permit = caller.ingest(host.as_ref(), tags_of);
            if hosts.contains(&name) {
                let permit = permit.unwrap();
                assert_eq!(permit.host().as_str(), name);
                assert_eq!(permit.gateway(), Some(&identity.spiffe_id.name));
            } else {
                assert_eq!(permit.err(), outside(), "{limits:?}: {name}");
            }
            // Not even of the host that is called as it is.
            assert!(caller.report(host.as_ref()).is_err(), "{name}");
            assert!(caller.read_host(host.as_ref(), tags_of).is_err(), "{name}");
        }
        assert!(caller.list_hosts().is_err() && caller.administer().is_err());
    }
}

#[test]
fn names_are_compared_exactly() {
    let identity = identity(NODE_A, 1);
    let claims = claims(NODE_A, 1, "metrics:write");
    let caller = Caller::new(&identity, &claims).unwrap();
    for other in ["A", "a ", "a.", "", "a/b", "a%00", "../a"] {
        let other: Option<NodeName> = other.parse().ok();
        let refused = caller.ingest(other.as_ref(), untagged).unwrap_err();
        assert_eq!(refused, caller.wrong_host(), "{other:?}");
    }
}
