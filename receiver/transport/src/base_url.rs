//! The URL of a server.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use reqwest::Url;

/// The URL of a receiver: `https://HOST:PORT`. The routes are below it.
///
/// ```
/// use lizmon_transport::BaseUrl;
/// let url: BaseUrl = "https://localhost:8443/".parse().unwrap();
/// assert_eq!(url.to_string(), "https://localhost:8443");
/// assert!("http://localhost:8443".parse::<BaseUrl>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(Arc<str>);

/// The text is not a valid URL of a receiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// Not a URL at all.
    #[error("`{0}` is not a URL: it should look like https://localhost:8443")]
    NotUrl(String),
    /// The text has a space, because it has several URLs or a typing error.
    #[error("`{0}` has a space in it: it should look like https://localhost:8443")]
    Space(String),
    /// The scheme is not `https`.
    #[error("`{0}` does not start with https://: lizmon uses nothing else")]
    NotHttps(String),
    /// The URL has more than scheme, host, port and path.
    #[error("`{0}` has a user, a `?` or a `#` in it: it should look like https://localhost:8443")]
    TooMuch(String),
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let text = text.trim();
        let shown = || text.escape_debug().to_string();
        if text.contains(char::is_whitespace) {
            return Err(BaseUrlError::Space(shown()));
        }
        if !text.contains("://") {
            return Err(BaseUrlError::NotUrl(shown()));
        }
        let url = Url::parse(text).map_err(|_| BaseUrlError::NotUrl(shown()))?;
        if url.scheme() != "https" {
            return Err(BaseUrlError::NotHttps(shown()));
        }
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if plain {
            Ok(Self(url.as_str().trim_end_matches('/').into()))
        } else {
            Err(BaseUrlError::TooMuch(shown()))
        }
    }
}

impl BaseUrl {
    /// The URL without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        let cases = [
            ("https://localhost:8443", Ok("https://localhost:8443")),
            (" https://localhost:8443\n", Ok("https://localhost:8443")),
            ("https://a:8443 https://b:8443", Err("has a space in it")),
            ("https://localhost:8443/", Ok("https://localhost:8443")),
            ("HTTPS://LocalHost/", Ok("https://localhost")),
            ("https://[::1]:8443", Ok("https://[::1]:8443")),
            ("https://a.example/lizmon/", Ok("https://a.example/lizmon")),
            ("localhost:8443", Err("is not a URL")),
            ("localhost", Err("is not a URL")),
            ("", Err("is not a URL")),
            ("https://", Err("is not a URL")),
            ("https://a b", Err("has a space in it")),
            ("http://localhost:8443", Err("does not start with https")),
            ("ftp://localhost", Err("does not start with https")),
            ("https://u:p@localhost", Err("has a user")),
            ("https://localhost/?x", Err("has a user")),
            ("https://localhost/#x", Err("has a user")),
        ];
        for (text, expected) in cases {
            match (text.parse::<BaseUrl>(), expected) {
                (Ok(url), Ok(expected)) => assert_eq!(url.as_str(), expected),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{text}: {error}");
                }
                (got, expected) => panic!("{text}: got {got:?}, expected {expected:?}"),
            }
        }
    }
}
