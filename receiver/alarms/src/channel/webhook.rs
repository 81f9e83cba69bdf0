//! Webhooks: `POST` of JSON, signed as Standard Webhooks says (<https://www.standardwebhooks.com>).

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};

use super::error::TellError;
use super::http;
use crate::message::Message;
use crate::rules::WebhookConfig;

/// The same for each attempt: a receiver that has seen it need do nothing.
const ID_HEADER: &str = "webhook-id";
/// When this attempt was made: epoch seconds. It is signed, so that an old one cannot be replayed.
const TIME_HEADER: &str = "webhook-timestamp";
/// `v1,` and the HMAC-SHA256 of `ID.TIME.BODY`.
const SIGNATURE_HEADER: &str = "webhook-signature";
/// A secret with this prefix is in base64.
const ENCODED_PREFIX: &str = "whsec_";

/// A webhook.
#[derive(Debug)]
pub(super) struct Webhook {
    config: WebhookConfig,
    client: Option<reqwest::Client>,
}

impl Webhook {
    pub(super) fn new(config: WebhookConfig) -> Self {
        Self {
            config,
            client: None,
        }
    }

    pub(super) async fn tell(&mut self, message: &Message, now: u64) -> Result<(), TellError> {
        let body = self.body(message).map_err(TellError::passing)?;
        let client = match &self.client {
            Some(client) => client.clone(),
            None => http::client(self.config.ca_file.as_deref(), None)?,
        };
        self.client = Some(client.clone());
        let id = &message.notice.id;
        let mut request = client
            .post(self.config.url.clone())
            .header(CONTENT_TYPE, &self.config.content_type)
            .header("idempotency-key", format!("\"{id}\""))
            .header(ID_HEADER, id)
            .header(TIME_HEADER, now.to_string());
        if let Some(file) = &self.config.secret_file {
            let signature = sign(&http::secret(file)?, id, now, &body);
            request = request.header(SIGNATURE_HEADER, signature);
        }
        if let Some(file) = &self.config.authorization_file {
            let value = HeaderValue::from_str(&http::secret(file)?);
            let mut value = value.map_err(|error| http::of_file(file, error))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let sent = request.body(body).send().await;
        let judged = sent
            .map_err(http::of_request)
            .and_then(|response| http::judge(&response));
        if judged.is_err() {
            // Its files may have changed.
            self.client = None;
        }
        judged
    }

    /// What its template makes of a message; our JSON without one, and where it fails.
    fn body(&self, message: &Message) -> serde_json::Result<Vec<u8>> {
        let rendered = self.config.body.as_deref().and_then(|template| {
            let rendered = message.render(template);
            rendered.inspect_err(|error| message.say_failed(error)).ok()
        });
        rendered.map_or_else(|| message.to_json(), |text| Ok(text.into_bytes()))
    }
}

/// The signature of a body.
fn sign(secret: &str, id: &str, now: u64, body: &[u8]) -> String {
    let encoded = secret.strip_prefix(ENCODED_PREFIX);
    let decoded = encoded.and_then(|text| STANDARD.decode(text).ok());
    let key = decoded.as_deref().unwrap_or(secret.as_bytes());
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(format!("{id}.{now}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = br#"{"test": 2432232314}"#;
        let signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn any_change_changes_the_signature() {
        let signed = sign("key", "id", 7, b"body");
        for (secret, id, now, body) in [
            ("kex", "id", 7, "body"),
            ("key", "ix", 7, "body"),
            ("key", "id", 8, "body"),
            ("key", "id", 7, "bodx"),
        ] {
            assert_ne!(sign(secret, id, now, body.as_bytes()), signed);
        }
    }
}
