//! Links: all of them relative, with every name and label percent-encoded.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A part of a path or query.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// A query of these parameters, without those that are empty. It begins with `?`, so as a link it
/// means the page itself.
///
/// ```
/// use lizmon_page::link::query;
/// assert_eq!(query(&[("q", "a b"), ("show", ""), ("page", "2")]), "?q=a%20b&page=2");
/// assert_eq!(query(&[("q", "")]), "?");
/// ```
pub fn query(parameters: &[(&str, &str)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<_> = given
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    format!("?{}", pairs.join("&"))
}

/// The page that revokes a host, from a page at this root.
pub fn revoke(root: &str, name: &str) -> String {
    format!("{root}revoke/{}", encoded(name))
}

/// The page of a host, from a page at this root.
///
/// ```
/// assert_eq!(lizmon_page::link::host("", "web1"), "hosts/web1");
/// assert_eq!(lizmon_page::link::host("../", "web1"), "../hosts/web1");
/// ```
pub fn host(root: &str, name: &str) -> String {
    format!("{root}hosts/{}", encoded(name))
}
