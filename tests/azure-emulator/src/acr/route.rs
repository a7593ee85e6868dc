//! Which access a registry request takes.

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::access::{Access, is_repository};
use crate::http::Form;

/// A request that the registry knows.
pub(super) struct Route {
    /// What the token must hold.
    pub(super) needed: Vec<Access>,
    /// What the challenge tells the client to ask for: for a push also the right to pull.
    pub(super) wished: Vec<Access>,
    /// ACR's own listing, which the registry behind does not know.
    pub(super) listing: Option<Listing>,
}

/// ACR's own form of a list.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Listing {
    Repositories,
    Tags { repository: String },
}

/// The path without percent-encoding, which some clients put into names and digests. `None` for one that could mean
/// something else to the registry behind than it means here.
pub(super) fn plain_path(path: &str) -> Option<String> {
    let path = percent_decode_str(path).decode_utf8().ok()?;
    let ordinary = |b: u8| b.is_ascii_alphanumeric() || b"/._-:+=".contains(&b);
    let odd_segment = |segment: &str| matches!(segment, "." | "..");
    let ambiguous = path.contains("//") || path.split('/').any(odd_segment);
    (path.bytes().all(ordinary) && !ambiguous).then(|| path.into_owned())
}

impl Route {
    /// The path is one that [`plain_path`] made.
    pub(super) fn of(method: &Method, path: &str, query: &Form) -> Option<Self> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match path {
            "/v2" | "/v2/" => Some(Self::plain(Vec::new())),
            "/v2/_catalog" if reads => Some(Self::plain(vec![Access::catalog()])),
            "/acr/v1/_catalog" if reads => Some(Self {
                listing: Some(Listing::Repositories),
                ..Self::plain(vec![Access::catalog()])
            }),
            path => match path.strip_prefix("/acr/v1/") {
                Some(rest) if reads => Self::tags(rest.strip_suffix("/_tags")?),
                Some(_) => None,
                None => Self::distribution(method, path.strip_prefix("/v2/")?, query),
            },
        }
    }

    fn plain(needed: Vec<Access>) -> Self {
        Self {
            wished: needed.clone(),
            needed,
            listing: None,
        }
    }

    fn tags(repository: &str) -> Option<Self> {
        let listing = Listing::Tags {
            repository: repository.to_owned(),
        };
        let needed = vec![Access::repository(repository, &["metadata_read"])];
        is_repository(repository).then(|| Self {
            listing: Some(listing),
            ..Self::plain(needed)
        })
    }

    /// `{repository}/(blobs|manifests|tags|referrers)/…`, the last such word counting: repositories may be called so too.
    fn distribution(method: &Method, rest: &str, query: &Form) -> Option<Self> {
        let positions = ["/blobs/", "/manifests/", "/tags/", "/referrers/"]
            .iter()
            .filter_map(|word| rest.rfind(word));
        let repository = &rest[..positions.max()?];
        if !is_repository(repository) {
            return None;
        }
        let upload = rest.contains("/blobs/uploads/");
        let route = match *method {
            Method::GET | Method::HEAD if !upload => {
                Self::plain(vec![Access::repository(repository, &["pull"])])
            }
            Method::DELETE if !upload => Self::plain(vec![Access::repository(repository, &["delete"])]),
            Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE => {
                Self {
                    needed: vec![Access::repository(repository, &["push"])],
                    wished: vec![Access::repository(repository, &["pull", "push"])],
                    listing: None,
                }
            }
            _ => return None,
        };
        Some(route.with_mount(query))
    }

    /// Mounting a blob from another repository takes the right to pull there.
    fn with_mount(mut self, query: &Form) -> Self {
        if let (Some(_), Some(from)) = (query.get("mount"), query.get("from")) {
            let pull = Access::repository(from, &["pull"]);
            self.needed.push(pull.clone());
            self.wished.push(pull);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(method: Method, uri: &str) -> String {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let query = Form::parse(query.as_bytes());
        match plain_path(path).and_then(|path| Route::of(&method, &path, &query)) {
            Some(route) => route
                .needed
                .iter()
                .map(Access::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            None => "unknown".to_owned(),
        }
    }

    #[test]
    fn reading_takes_pull_writing_push_and_removing_delete() {
        assert_eq!(
            needed(Method::GET, "/v2/shop/web/manifests/v1"),
            "repository:shop/web:pull"
        );
        assert_eq!(
            needed(Method::HEAD, "/v2/shop/web/blobs/sha256:00"),
            "repository:shop/web:pull"
        );
        assert_eq!(
            needed(Method::GET, "/v2/shop/web/tags/list"),
            "repository:shop/web:pull"
        );
        assert_eq!(
            needed(Method::POST, "/v2/shop/web/blobs/uploads/"),
            "repository:shop/web:push"
        );
        assert_eq!(
            needed(Method::PATCH, "/v2/shop/web/blobs/uploads/1?_state=x"),
            "repository:shop/web:push"
        );
        assert_eq!(
            needed(Method::GET, "/v2/shop/web/blobs/uploads/1"),
            "repository:shop/web:push"
        );
        assert_eq!(
            needed(Method::DELETE, "/v2/shop/web/manifests/sha256:00"),
            "repository:shop/web:delete"
        );
        assert_eq!(needed(Method::GET, "/v2/"), "");
    }

    #[test]
    fn a_mount_takes_the_source_as_well() {
        let uri = "/v2/a/blobs/uploads/?mount=sha256:00&from=b/c";
        assert_eq!(needed(Method::POST, uri), "repository:a:push repository:b/c:pull");
    }

    #[test]
    fn repositories_may_be_named_like_the_words_of_the_protocol() {
        assert_eq!(
            needed(Method::GET, "/v2/tags/blobs/x/manifests/v1"),
            "repository:tags/blobs/x:pull"
        );
    }

    #[test]
    fn names_and_digests_may_be_percent_encoded() {
        assert_eq!(
            needed(Method::GET, "/acr/v1/shop%2Fweb/_tags"),
            "repository:shop/web:metadata_read"
        );
        assert_eq!(
            needed(Method::GET, "/v2/shop%2Fweb/manifests/sha256%3A00"),
            "repository:shop/web:pull"
        );
    }

    #[test]
    fn acrs_own_lists_take_their_own_rights() {
        assert_eq!(needed(Method::GET, "/acr/v1/_catalog?n=5"), "registry:catalog:*");
        assert_eq!(
            needed(Method::GET, "/acr/v1/shop/web/_tags"),
            "repository:shop/web:metadata_read"
        );
        assert_eq!(needed(Method::DELETE, "/acr/v1/shop/web/_tags"), "unknown");
    }

    #[test]
    fn tricks_with_the_path_are_no_known_request() {
        for path in [
            "/v2/a/../b/manifests/v1",
            "/v2/a/manifests/%2e%2e/%2e%2e/b/manifests/v1",
            "/v2/a/manifests/v1%3Fx",
            "/v2/a//manifests/v1",
            "/v2//manifests/v1",
            "/v2/a",
            "/metrics",
            "/v2/a/x",
        ] {
            assert_eq!(needed(Method::GET, path), "unknown", "{path}");
        }
    }
}
