//! The requests to `liz-ca`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lizmon_pki::own_chain::{OwnCertificateState, OwnChain};
use lizmon_protocol::enrol::{CACERTS, MEDIA_TYPE_REQUEST};
use lizmon_protocol::name::SpiffeId;
use lizmon_protocol::problem;
use lizmon_transport::https::{ask_clock, https_client, retry_after};
use lizmon_transport::{BaseUrl, ConnectError};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use reqwest::RequestBuilder;
use reqwest::header::CONTENT_TYPE;
use rustls::pki_types::CertificateDer;

use crate::answer::{AnswerFlaw, CaCertificates, NewChain, read_certificates};
use crate::error::EnrolError;

/// The maximum size of an answer with certificates: enough for a hundred of them.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The maximum length of the text of a rejection.
const TEXT_CHARS_MAX: usize = 400;

/// A locally generated key and its certificate signing request.
pub(crate) struct NewKey {
    pub(crate) pem: String,
    spki: Vec<u8>,
    request: Vec<u8>,
}

impl NewKey {
    pub(crate) fn generate() -> Result<Self, EnrolError> {
        Self::new(&KeyPair::generate()?)
    }

    /// Reads the only private key in a PEM text, which may also hold a chain.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, EnrolError> {
        let key = lizmon_pki::pem::private_key(pem.as_bytes());
        let key = key.map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        Self::new(&KeyPair::try_from(&key)?)
    }

    /// The request contains only the key, because the CA ignores all other fields.
    fn new(pair: &KeyPair) -> Result<Self, EnrolError> {
        let request = CertificateParams::default().serialize_request(pair)?;
        Ok(Self {
            pem: pair.serialize_pem(),
            spki: pair.subject_public_key_info(),
            request: request.der().to_vec(),
        })
    }
}

/// A client of one `liz-ca`.
pub(crate) struct Ca {
    url: BaseUrl,
    http: reqwest::Client,
    shown: Option<ShownCertificate>,
}

/// The client certificate for the connection to the CA.
pub(crate) struct ShownCertificate {
    own: OwnChain,
    anonymous: rustls::ClientConfig,
    now: u64,
}

impl ShownCertificate {
    pub(crate) fn new(own: OwnChain, anonymous: rustls::ClientConfig, now: u64) -> Self {
        Self {
            own,
            anonymous,
            now,
        }
    }
}

impl Ca {
    pub(crate) fn new(
        url: BaseUrl,
        tls: rustls::ClientConfig,
        shown: Option<ShownCertificate>,
    ) -> Result<Self, EnrolError> {
        let http = https_client(tls).map_err(|error| {
            ConnectError::from_transport(&url, error, OwnCertificateState::default)
        })?;
        Ok(Self { url, http, shown })
    }

    async fn failed(&self, error: reqwest::Error) -> ConnectError {
        let Some(shown) = &self.shown else {
            return ConnectError::from_transport(&self.url, error, OwnCertificateState::default);
        };
        let mut error =
            ConnectError::from_transport(&self.url, error, || shown.own.state(shown.now));
        ask_clock(&mut error, &self.url, &shown.anonymous).await;
        error
    }

    pub(crate) async fn certificates(&self) -> Result<CaCertificates, EnrolError> {
        let body = self.send(self.get(CACERTS)).await?;
        CaCertificates::read(&body).map_err(|flaw| self.flawed(flaw))
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(self.at(path))
    }

    pub(crate) fn post(&self, path: &str, key: &NewKey) -> RequestBuilder {
        self.http
            .post(self.at(path))
            .header(CONTENT_TYPE, MEDIA_TYPE_REQUEST)
            .body(STANDARD.encode(&key.request))
    }

    /// Sends a request that is answered with exactly one certificate.
    pub(crate) async fn leaf(
        &self,
        request: RequestBuilder,
    ) -> Result<CertificateDer<'static>, EnrolError> {
        let found = read_certificates(&self.send(request).await?);
        let found = found.map_err(|flaw| self.flawed(flaw))?;
        match <[_; 1]>::try_from(found) {
            Ok([leaf]) => Ok(leaf),
            Err(other) => Err(self.flawed(AnswerFlaw::Count(other.len()))),
        }
    }

    pub(crate) fn check(
        &self,
        certificates: &CaCertificates,
        leaf: CertificateDer<'static>,
        key: &NewKey,
        now: u64,
        id: impl Fn(&SpiffeId) -> bool,
    ) -> Result<NewChain, EnrolError> {
        certificates
            .chain_of(leaf, id, &key.spki, now)
            .map_err(|flaw| self.flawed(flaw))
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Vec<u8>, EnrolError> {
        self.send_for(request, ANSWER_BYTES_MAX).await
    }

    /// Like `send`, with a limit on the size of the answer in bytes.
    pub(crate) async fn send_for(
        &self,
        request: RequestBuilder,
        bytes_max: usize,
    ) -> Result<Vec<u8>, EnrolError> {
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(self.failed(error).await.into()),
        };
        let (status, retry_after) = (response.status().as_u16(), retry_after(&response));
        // Only a receiver sends RFC 9457 problem details. `liz-ca` does not.
        if is_problem(&response) {
            let url = self.url.clone();
            return Err(EnrolError::IsReceiver { url });
        }
        let mut body = Vec::new();
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Err(self.failed(error).await.into()),
            };
            if body.len() + chunk.len() > bytes_max {
                return Err(self.flawed(AnswerFlaw::TooLarge(bytes_max)));
            }
            body.extend_from_slice(&chunk);
        }
        if status == 200 {
            return Ok(body);
        }
        Err(EnrolError::Refused {
            url: self.url.clone(),
            status,
            text: one_line(&body),
            retry_after,
        })
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(crate) fn flawed(&self, flaw: AnswerFlaw) -> EnrolError {
        EnrolError::Answer {
            url: self.url.clone(),
            flaw,
        }
    }
}

fn is_problem(response: &reqwest::Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(problem::MEDIA_TYPE.as_bytes()))
}

/// Makes untrusted text safe to print on a terminal.
fn one_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = words
        .join(" ")
        .chars()
        .take(TEXT_CHARS_MAX)
        .filter(|character| !character.is_control())
        .collect();
    if line.is_empty() {
        "no reason given: is it a liz-ca?".to_owned()
    } else {
        line
    }
}
