//! The queries of pages: what is not understood is as if it had not been given, because people edit
//! and share them.

use http::request;
use lizmon_page::host::{HostQuery, PlotRange};
use lizmon_page::overview::OverviewQuery;
use lizmon_protocol::name::NodeName;

/// The longest text that is searched for.
const SEARCH_CHARS_MAX: usize = 200;

/// What any page may be asked for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct PageQuery {
    /// `q`
    pub(super) search: String,
    /// `page`
    pub(super) page: u64,
    /// `host`
    pub(super) host: Option<NodeName>,
    /// Whether a host was named, if only by a name that none can have.
    pub(super) names_host: bool,
    /// `events`: after how many the stream ends.
    pub(super) events: Option<u64>,
    show: String,
    tag: String,
    label: String,
    range: PlotRange,
}

impl PageQuery {
    /// The query of a request.
    pub(super) fn of(head: &request::Parts) -> Self {
        let mut query = Self {
            page: 1,
            ..Self::default()
        };
        let given = head.uri.query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(given.as_bytes()) {
            match &*name {
                "q" => query.search = value.trim().chars().take(SEARCH_CHARS_MAX).collect(),
                "page" => query.page = value.parse().unwrap_or(1),
                "host" => (query.host, query.names_host) = (value.parse().ok(), true),
                "events" => query.events = value.parse().ok(),
                "show" => query.show = value.chars().take(SEARCH_CHARS_MAX).collect(),
                "tag" => query.tag = value.chars().take(SEARCH_CHARS_MAX).collect(),
                "label" => query.label = value.chars().take(SEARCH_CHARS_MAX).collect(),
                "range" => query.range = PlotRange::of(&value),
                _ => (),
            }
        }
        query
    }

    /// As the list of hosts has it.
    pub(super) fn overview(self) -> OverviewQuery {
        OverviewQuery {
            search: self.search,
            show: self.show,
            tag: self.tag,
            page: self.page,
        }
    }

    /// As the page of a host has it.
    pub(super) fn host(self) -> HostQuery {
        HostQuery {
            label: self.label,
            search: self.search,
            range: self.range,
            page: self.page,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parsed(query: &str) -> PageQuery {
        let request = Request::get(format!("/?{query}")).body(()).unwrap();
        PageQuery::of(&request.into_parts().0)
    }

    #[test]
    fn what_is_not_understood_is_not_given() {
        let plain = parsed("");
        assert_eq!(plain.page, 1);
        for same in ["page=x", "page=-1", "page=", "range=ever", "other=1", "&&="] {
            assert_eq!(parsed(same), plain, "{same}");
        }
        let nobody = parsed("host=a%20b");
        assert_eq!((nobody.host, nobody.names_host), (None, true));
        let asked = parsed("q=+a%3Cb+&page=3&host=web1&label=%E2%80%AEx&range=day");
        assert_eq!(asked.search, "a<b");
        assert_eq!((asked.page, asked.range), (3, PlotRange::Day));
        assert_eq!(asked.label, "\u{202e}x");
        assert_eq!(
            parsed(&format!("q={}", "a".repeat(9_999))).search.len(),
            200
        );
    }
}
