//! Tokens, certificates, errors, and what operators send.

use lizmon_protocol::alarm::{
    ChannelTested, SILENCE_SECS_MAX, SilenceRequest, Silenced, WHY_BYTES_MAX,
};
use lizmon_protocol::certificate::{SeenCertificate, SeenCertificates};
use lizmon_protocol::name::Role;
use lizmon_protocol::problem::{Code, Problem, ValueError};
use lizmon_protocol::sample::ERRORS_SHOWN_MAX;
use lizmon_protocol::token::{GRANT_CLIENT_CREDENTIALS, Scope, Scopes, TokenError, TokenResponse};
use serde_json::json;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{ObjectBuilder, SchemaFormat, Type};

use super::super::super::oauth::{OAuthErrorCode, metadata_of};
use super::super::super::probes::Health;
use super::parts::{
    Keys as _, NamedSchema, boolean, count, epoch, list, named, object, one_of, or_null, parsed,
    text,
};
use super::samples::NOW;
use crate::certificates::CERTIFICATES_MAX;

const ISSUER: &str = "https://rx1.example:8443";
const SHA256_HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

pub(super) fn all() -> Vec<NamedSchema> {
    vec![
        value_error(),
        problem(),
        token_request(),
        token_response(),
        token_error(),
        authorization_server(),
        key_set(),
        certificate(),
        certificates(),
        silence_request(),
        silenced(),
        channel_tested(),
        health(),
    ]
}

fn value_error() -> NamedSchema {
    let schema = object()
        .may_have("record", count().says("The record in the batch, from 0"))
        .may_have("label", text())
        .has("reason", text());
    NamedSchema::new("ValueError", schema)
        .example("label", &wrong_value())
        .example(
            "request",
            &ValueError {
                record: None,
                label: None,
                reason: "why: it must not be empty".to_owned(),
            },
        )
}

fn wrong_value() -> ValueError {
    ValueError {
        record: Some(3),
        label: Some("cpu".to_owned()),
        reason: "a value is a number, or one in a string".to_owned(),
    }
}

fn problem() -> NamedSchema {
    let schema = object()
        .says("RFC 9457. Programs decide by `code`")
        .has("type", text().pattern(Some("^urn:lizmon:problem:")))
        .has("status", count())
        .has("code", one_of(Code::ALL.iter().map(|code| code.as_str())))
        .has(
            "title",
            text().says("The same in every answer with this code"),
        )
        .may_have("detail", text())
        .may_have(
            "errors",
            list(named("ValueError")).max_items(Some(ERRORS_SHOWN_MAX)),
        )
        .may_have("now", epoch().says("The receiver's time"));
    let mut values =
        Problem::new(Code::InvalidValues).with_detail("1 of the values is not accepted");
    values.errors = vec![wrong_value()];
    values.now = Some(NOW);
    NamedSchema::new("Problem", schema)
        .example("values", &values)
        .example("token", &Problem::new(Code::TokenExpired))
}

fn scopes() -> ObjectBuilder {
    let any = Scope::ALL.map(Scope::as_str).join("|");
    text()
        .says("Scopes, separated by single spaces; without it all that the role may have")
        .pattern(Some(format!("^(({any})( ({any}))*)?$")))
}

fn token_request() -> NamedSchema {
    let schema = object()
        .says("RFC 6749 section 4.4.2")
        .has("grant_type", one_of([GRANT_CLIENT_CREDENTIALS]))
        .may_have(
            "client_id",
            text().says("The certificate's SPIFFE ID, which it need not say"),
        )
        .may_have("scope", scopes())
        .may_have("resource", text().says("RFC 8707: the receiver's audience"));
    NamedSchema::new("TokenRequest", schema)
        .example("client", &json!({"grant_type": GRANT_CLIENT_CREDENTIALS}))
}

fn token_response() -> NamedSchema {
    let schema = object()
        .says("RFC 6749 section 5.1")
        .has(
            "access_token",
            text().says("A JWT (RFC 9068), bound to the certificate (RFC 8705)"),
        )
        .has("token_type", one_of(["Bearer"]))
        .has("expires_in", count().says("Seconds"))
        .has("scope", scopes());
    let response = TokenResponse {
        access_token: "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.e30.c2lnbmF0dXJl"
            .to_owned(),
        token_type: "Bearer".to_owned(),
        expires_in: 300,
        scope: Scopes::of(Role::Node),
    };
    NamedSchema::new("TokenResponse", schema).example("node", &response)
}

fn token_error() -> NamedSchema {
    let schema = object()
        .says("RFC 6749 section 5.2")
        .has(
            "error",
            one_of(OAuthErrorCode::ALL.map(OAuthErrorCode::as_str)),
        )
        .may_have("error_description", text());
    let of = |description| TokenError {
        error: OAuthErrorCode::InvalidScope.as_str().to_owned(),
        error_description: description,
    };
    let described = Some("the role node may have: metrics:write".to_owned());
    NamedSchema::new("TokenError", schema)
        .example("described", &of(described))
        .example("bare", &of(None))
}

fn authorization_server() -> NamedSchema {
    let url = || text().format(Some(SchemaFormat::Custom("uri".to_owned())));
    let schema = object()
        .says("RFC 8414")
        .has("issuer", url())
        .has("token_endpoint", url())
        .has("jwks_uri", url())
        .has("response_types_supported", list(text()))
        .has("grant_types_supported", list(text()))
        .has("token_endpoint_auth_methods_supported", list(text()))
        .has("tls_client_certificate_bound_access_tokens", boolean())
        .has("scopes_supported", list(text()));
    NamedSchema::new("AuthorizationServer", schema).example("receiver", &metadata_of(ISSUER))
}

fn key_set() -> NamedSchema {
    let key = object()
        .says("RFC 8037")
        .has("kty", one_of(["OKP"]))
        .has("crv", one_of(["Ed25519"]))
        .has("x", text())
        .has("kid", text())
        .has("use", one_of(["sig"]))
        .has("alg", one_of(["EdDSA"]));
    let schema = object().says("RFC 7517").has("keys", list(key));
    // The key of RFC 8037 appendix A.
    let example = json!({"keys": [{
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "use": "sig", "alg": "EdDSA",
    }]});
    NamedSchema::new("KeySet", schema).example("one", &example)
}

fn certificate() -> NamedSchema {
    let schema = object()
        .has("identity", text().says("The SPIFFE ID"))
        .has("serial", text().says("Hexadecimal"))
        .has("issuer", text())
        .has("not-after", epoch())
        .has("first-seen", epoch())
        .has(
            "last-seen",
            epoch().says("Exact to a minute: epoch seconds"),
        )
        .has("sha256", text().says("Of its DER, hexadecimal"));
    NamedSchema::new("Certificate", schema).example("node", &seen())
}

fn seen() -> SeenCertificate {
    SeenCertificate {
        identity: parsed("spiffe://lizmon.internal/node/web1"),
        serial: "2f8a01".to_owned(),
        issuer: "CN=lizmon issuing CA 1".to_owned(),
        not_after: NOW + 90 * 86_400,
        first_seen: NOW - 3_600,
        last_seen: NOW,
        sha256: SHA256_HEX.to_owned(),
    }
}

fn certificates() -> NamedSchema {
    let schema = object()
        .has("since", epoch())
        .has("complete", boolean().says("Whether there was room for all"))
        .has(
            "certificates",
            list(named("Certificate")).max_items(Some(CERTIFICATES_MAX)),
        );
    let list = SeenCertificates {
        since: NOW - 86_400,
        complete: true,
        certificates: vec![seen()],
    };
    NamedSchema::new("Certificates", schema).example("one", &list)
}

fn silence_request() -> NamedSchema {
    let for_secs = count()
        .says("For how long from now; 0 ends a silence")
        .maximum(Some(SILENCE_SECS_MAX as usize));
    let why = text()
        .description(Some(format!(
            "One line of text, of at most {WHY_BYTES_MAX} bytes"
        )))
        .min_length(Some(1))
        .max_length(Some(WHY_BYTES_MAX));
    let schema = object()
        .has("for-secs", for_secs)
        .has("why", why)
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let request = SilenceRequest {
        for_secs: 7_200,
        why: "new disks".to_owned(),
    };
    NamedSchema::new("SilenceRequest", schema).example("disks", &request)
}

fn silenced() -> NamedSchema {
    let until = or_null(epoch(), Type::Integer).says("Null where the silence was ended");
    let schema = object().has("silenced-until", until);
    let of = |silenced_until| Silenced { silenced_until };
    NamedSchema::new("Silenced", schema)
        .example("silenced", &of(Some(NOW + 7_200)))
        .example("ended", &of(None))
}

fn channel_tested() -> NamedSchema {
    let failure = or_null(text(), Type::String).says("Null if the message was accepted");
    let schema = object().has("channel", text()).has("failure", failure);
    let of = |failure: Option<&str>| ChannelTested {
        channel: "mail".to_owned(),
        failure: failure.map(str::to_owned),
    };
    NamedSchema::new("ChannelTested", schema)
        .example("accepted", &of(None))
        .example("failed", &of(Some("the server does not answer")))
}

fn health() -> NamedSchema {
    let schema = object()
        .has("status", one_of(["ok"]))
        .may_have("warnings", list(text()));
    let of = |warnings| Health {
        status: "ok",
        warnings,
    };
    NamedSchema::new("Health", schema)
        .example("ok", &of(Vec::new()))
        .example(
            "warning",
            &of(vec!["the CRL of the root ends in 9 days".to_owned()]),
        )
}
