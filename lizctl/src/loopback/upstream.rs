//! The receiver, asked with the reader's certificate and token.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Body;
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Response};
use lizmon_client::{Client, Error, Forwarded};

use super::paths::Place;
use crate::connection::ReceiverConnection;

/// How often the files of the certificate are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a request may bring along. Cookies, names of hosts, and what proxies add stay here.
const HANDED_ON: [&str; 6] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "if-none-match",
    "if-modified-since",
    "last-event-id",
];

/// What an answer may not bring along: what is about one connection (RFC 9110 section 7.6.1), and
/// what would bind this origin, open it to others or lead away from it.
const KEPT_BACK: [&str; 16] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "proxy-authenticate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "set-cookie",
    "strict-transport-security",
    "location",
    "content-location",
    "refresh",
    "alt-svc",
    "clear-site-data",
    "access-control-allow-origin",
];

/// The receiver, asked as this reader.
pub(crate) struct Upstream {
    connection: ReceiverConnection,
    clock: fn() -> u64,
    /// Replaced when the files of the certificate are: see [`Self::keep_current`].
    client: RwLock<Arc<Client>>,
}

impl Upstream {
    /// Reads and checks the files; sends nothing yet.
    pub(crate) fn new(connection: ReceiverConnection, clock: fn() -> u64) -> Result<Self, Error> {
        let client = client(&connection, clock())?;
        Ok(Self {
            client: RwLock::new(Arc::new(client)),
            connection,
            clock,
        })
    }

    pub(crate) fn client(&self) -> Arc<Client> {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner);
        client.clone()
    }

    pub(crate) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// Takes a renewed certificate into use. Never returns.
    #[expect(clippy::disallowed_methods, reason = "paces looks at the files")]
    pub(crate) async fn keep_current(&self) {
        let mut watched: Option<Client> = None;
        loop {
            let now = self.now();
            let renewed = match &mut watched {
                // The files may be just being replaced.
                None => {
                    watched = client(&self.connection, now).ok();
                    Ok(false)
                }
                Some(watched) => watched.reload(now).map_err(Error::from),
            };
            let renewed = renewed.and_then(|is_new| match is_new {
                true => client(&self.connection, now).map(Some),
                false => Ok(None),
            });
            match renewed {
                Ok(None) => (),
                Ok(Some(client)) => {
                    let mut held = self.client.write().unwrap_or_else(PoisonError::into_inner);
                    *held = Arc::new(client);
                }
                Err(error) => tracing::warn!(
                    "cannot reload the certificate files, keeping the previous ones: {}",
                    lizmon_pki::error_chain::in_one_line(&error)
                ),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Hands the request on, and streams the answer.
    pub(super) async fn ask(&self, parts: &Parts, place: Place) -> Result<Response<Body>, Error> {
        let mut headers = HeaderMap::new();
        for name in HANDED_ON.map(HeaderName::from_static) {
            for value in parts.headers.get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        let path_and_query = parts.uri.path_and_query();
        let request = Forwarded {
            method: &parts.method,
            path_and_query: path_and_query.map_or("/", |path| path.as_str()),
            headers: &headers,
            with_token: place.with_token,
            is_stream: place.is_stream,
        };
        let answer = self.client().forward(request, self.now()).await?;
        let (mut head, body) = Response::from(answer).into_parts();
        head.version = http::Version::HTTP_11;
        keep_back(&mut head.headers);
        Ok(Response::from_parts(head, Body::new(body)))
    }
}

/// An ended certificate is no reason to stop: it may be renewed.
fn client(connection: &ReceiverConnection, now: u64) -> Result<Client, Error> {
    let (url, crls) = (connection.receiver.clone(), Default::default());
    Client::lasting(url, &connection.credentials, crls, now)
}

fn keep_back(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named
        .into_iter()
        .chain(KEPT_BACK.map(HeaderName::from_static))
    {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_the_connection_stays_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a=b"),
            ("strict-transport-security", "max-age=1"),
            ("location", "https://evil.example"),
            ("access-control-allow-origin", "*"),
            ("content-type", "text/html"),
            ("lizmon-time", "1.0"),
            ("content-security-policy", "default-src 'none'"),
        ] {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        keep_back(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            ["content-security-policy", "content-type", "lizmon-time"]
        );
    }
}
