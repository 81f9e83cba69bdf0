//! The URL of a receiver, as people write it.

use lizmon_client::{BaseUrl, BaseUrlError};
use lizmon_protocol::route;

/// Accepts a monitor's publish URL too: it names the same receiver.
pub(crate) fn parse_receiver(text: &str) -> Result<BaseUrl, BaseUrlError> {
    let bare = text.trim().trim_end_matches('/');
    bare.strip_suffix(route::PERF).unwrap_or(bare).parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers() {
        let cases = [
            ("https://r1:8443", Some("https://r1:8443")),
            ("https://r1:8443/", Some("https://r1:8443")),
            ("https://r1:8443/api/perf", Some("https://r1:8443")),
            ("https://r1:8443/api/perf/", Some("https://r1:8443")),
            ("https://a.example/x/api/perf", Some("https://a.example/x")),
            ("r1:8443", None),
            ("http://r1:8443", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let got = parse_receiver(text).ok();
            assert_eq!(got.as_ref().map(BaseUrl::as_str), expected, "{text}");
        }
    }
}
