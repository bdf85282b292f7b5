//! The words of the findings, and the lines to change. The demo's page has the same file.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use hyper::HeaderMap;
use serde::Deserialize;

/// The cause of a finding that is not in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cause {
    Tls,
    Transport,
    Silent,
    Upstream,
    Unauthorized,
    Stopped,
    Status,
    Redirect,
    Html,
    ContentType,
    Buffering,
    HeartbeatLate,
    Compression,
    IdleTimeout,
    TotalTimeout,
    NoHeartbeat,
    Ended,
    Refused,
    Waiting,
    Shared,
    Cached,
    Cacheable,
    LastEventId,
    NotResumed,
    UnknownId,
    ContentLength,
    #[serde(rename = "http-1.0")]
    Http10,
    SixConnections,
    CorsMissing,
    CorsTwice,
    CorsCredentials,
    CorsVary,
    CorsPreflight,
}

/// A place where a line is to be changed: the proxies of the guide, and the service itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    Nginx,
    Caddy,
    Haproxy,
    Apache,
    Service,
}

impl Place {
    /// The name in the report, which is the name in the file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Haproxy => "haproxy",
            Self::Apache => "apache",
            Self::Service => "service",
        }
    }

    /// Returns the proxy that a response names. HAProxy names itself nowhere.
    pub(crate) fn of_proxy(headers: &HeaderMap) -> Option<Self> {
        let values = ["server", "via"].map(|name| headers.get_all(name));
        let named = values.into_iter().flatten().filter_map(|value| value.to_str().ok());
        let named = named.collect::<Vec<_>>().join(" ").to_ascii_lowercase();
        let known = [
            ("nginx", Self::Nginx),
            ("openresty", Self::Nginx),
            ("caddy", Self::Caddy),
            ("haproxy", Self::Haproxy),
            ("apache", Self::Apache),
        ];
        known.into_iter().find(|(name, _)| named.contains(name)).map(|(_, place)| place)
    }
}

/// The words and the lines of a cause.
#[derive(Debug, Deserialize)]
pub(crate) struct Advice {
    pub(crate) says: String,
    #[serde(flatten)]
    lines: BTreeMap<Place, String>,
}

impl Advice {
    /// Returns the lines for a known proxy and the service, or for all proxies.
    pub(crate) fn lines(&self, proxy: Option<Place>) -> impl Iterator<Item = (Place, &str)> {
        let is_asked =
            move |place| place == Place::Service || proxy.is_none_or(|proxy| proxy == place);
        let lines = self.lines.iter().map(|(&place, line)| (place, line.as_str()));
        lines.filter(move |&(place, _)| is_asked(place))
    }
}

/// Returns the words and the lines of all causes.
pub(crate) fn all() -> &'static BTreeMap<Cause, Advice> {
    static ALL: LazyLock<BTreeMap<Cause, Advice>> = LazyLock::new(|| {
        serde_json::from_str(include_str!("../advice.json")).expect("a test reads the file")
    });
    &ALL
}

impl Cause {
    pub(crate) fn advice(self) -> &'static Advice {
        all().get(&self).expect("a test compares the causes with the file")
    }
}
