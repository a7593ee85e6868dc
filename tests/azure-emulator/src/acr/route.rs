//! The access that a registry request requires.

use super::access::{Access, Action, is_repository};
use hyper::Method;
use percent_encoding::percent_decode_str;

/// A request of the distribution protocol.
#[derive(Debug, PartialEq)]
pub struct Route {
    /// What the token must grant. `None` if any valid token is sufficient.
    pub required: Option<Access>,
    /// The scope that the challenge recommends: a client that pushes also reads.
    pub recommended: Option<Access>,
}

impl Route {
    /// The path is a result of [`plain_path`].
    pub fn of(method: &Method, path: &str) -> Option<Self> {
        if matches!(path, "/v2" | "/v2/") {
            return Some(Self {
                required: None,
                recommended: None,
            });
        }
        let path = path.strip_prefix("/v2/")?;
        // The last of these words counts, because a repository may have the name `blobs`.
        let words = ["/blobs/", "/manifests/", "/tags/", "/referrers/"];
        let end = words.iter().filter_map(|word| path.rfind(word)).max()?;
        let repository = &path[..end];
        if !is_repository(repository) {
            return None;
        }
        let access = |actions| Some(Access::new(repository, actions));
        let is_upload = path.contains("/blobs/uploads/");
        Some(match *method {
            Method::GET | Method::HEAD if !is_upload => Self {
                required: access(vec![Action::Pull]),
                recommended: access(vec![Action::Pull]),
            },
            Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH => Self {
                required: access(vec![Action::Push]),
                recommended: access(vec![Action::Pull, Action::Push]),
            },
            _ => return None,
        })
    }
}

/// The path without percent-encoding, which some clients use in names and digests. `None` for a path that the registry
/// behind the emulator could interpret differently.
pub fn plain_path(path: &str) -> Option<String> {
    let path = percent_decode_str(path).decode_utf8().ok()?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-:+=".contains(&b);
    let is_relative = |segment: &str| matches!(segment, "." | "..");
    let is_ambiguous = path.contains("//") || path.split('/').any(is_relative);
    (path.bytes().all(is_plain) && !is_ambiguous).then(|| path.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn required(method: Method, path: &str) -> String {
        match plain_path(path).and_then(|path| Route::of(&method, &path)) {
            Some(route) => route.required.map_or(String::new(), |access| access.to_string()),
            None => "unknown".to_owned(),
        }
    }

    #[test]
    fn reading_requires_pull_and_writing_requires_push() {
        for (method, path, expected) in [
            (
                Method::GET,
                "/v2/shop/web/manifests/v1",
                "repository:shop/web:pull",
            ),
            (
                Method::HEAD,
                "/v2/shop/web/blobs/sha256:00",
                "repository:shop/web:pull",
            ),
            (Method::GET, "/v2/shop/web/tags/list", "repository:shop/web:pull"),
            (
                Method::POST,
                "/v2/shop/web/blobs/uploads/",
                "repository:shop/web:push",
            ),
            (
                Method::PATCH,
                "/v2/shop/web/blobs/uploads/1",
                "repository:shop/web:push",
            ),
            (
                Method::GET,
                "/v2/shop/web/blobs/uploads/1",
                "repository:shop/web:push",
            ),
            (Method::DELETE, "/v2/shop/web/manifests/sha256:00", "unknown"),
            (Method::GET, "/v2/", ""),
        ] {
            assert_eq!(required(method, path), expected, "{path}");
        }
    }

    #[test]
    fn a_repository_may_have_the_name_of_a_word_of_the_protocol() {
        assert_eq!(
            required(Method::GET, "/v2/tags/blobs/x/manifests/v1"),
            "repository:tags/blobs/x:pull"
        );
    }

    #[test]
    fn names_and_digests_may_be_percent_encoded() {
        assert_eq!(
            required(Method::GET, "/v2/shop%2Fweb/manifests/sha256%3A00"),
            "repository:shop/web:pull"
        );
    }

    #[test]
    fn an_ambiguous_path_is_refused() {
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
            assert_eq!(required(Method::GET, path), "unknown", "{path}");
        }
    }
}
