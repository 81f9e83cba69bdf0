//! HTTP for webhooks and Alertmanager.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::error::TellError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that says when to come again is believed up to this.
const RETRY_AFTER_SECS_MAX: u64 = 300;
/// Largest file of a secret.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Certificate and key of a client.
pub(super) type ClientFiles = (PathBuf, PathBuf);

/// A client for one server: no redirects, no proxy. Its files are read now.
pub(super) fn client(
    ca_file: Option<&Path>,
    identity: Option<&ClientFiles>,
) -> Result<Client, TellError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            for certificate in certificates(file)? {
                roots
                    .add(certificate)
                    .map_err(|error| of_file(file, error))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TellError::passing)?
        .with_root_certificates(roots);
    let tls = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(cert)?;
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| of_file(key, error))?;
            builder
                .with_client_auth_cert(chain, key_der)
                .map_err(|error| of_file(cert, error))?
        }
    };
    Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("lizmon/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .map_err(TellError::passing)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TellError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| of_file(file, error))?;
    if certificates.is_empty() {
        return Err(of_file(file, "there is no certificate in it"));
    }
    Ok(certificates)
}

pub(super) fn of_file(file: &Path, error: impl std::fmt::Display) -> TellError {
    TellError::passing(format_args!("{}: {error}", file.display()))
}

/// A secret, without the end of its line.
pub(super) fn secret(file: &Path) -> Result<String, TellError> {
    let length = std::fs::metadata(file)
        .map_err(|error| of_file(file, error))?
        .len();
    if length > SECRET_BYTES_MAX {
        return Err(of_file(file, "the file is too large"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| of_file(file, error))?;
    let text = text.trim_end_matches(['\r', '\n']);
    match text.is_empty() {
        true => Err(of_file(file, "the file is empty")),
        false => Ok(text.to_owned()),
    }
}

/// An error of a request, without its URL: that may hold a secret.
pub(super) fn of_request(error: reqwest::Error) -> TellError {
    let error = error.without_url();
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        why = format!("{why}: {error}");
        cause = error.source();
    }
    TellError::passing(why)
}

/// Whether an answer accepts. What no repetition would change is refused for good.
pub(super) fn judge(response: &Response) -> Result<(), TellError> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let after = response.headers().get(RETRY_AFTER);
    let after = after.and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    let is_permanent = [
        StatusCode::BAD_REQUEST,
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::UNPROCESSABLE_ENTITY,
    ]
    .contains(&status);
    Err(TellError {
        why: format!("the server answered {status}"),
        is_permanent,
        retry_after: after.map(|secs| Duration::from_secs(secs.min(RETRY_AFTER_SECS_MAX))),
    })
}
