//! The names of images.

use crate::names::MAX_NAME_LENGTH;
use std::collections::BTreeSet;

/// The maximum number and the maximum length of the images that a detached request keeps.
const MAX_IMAGES: usize = 64;
const MAX_IMAGE_LENGTH: usize = 2 * MAX_NAME_LENGTH;

/// The name of a registry without the default port of HTTPS.
pub fn without_port(registry: &str) -> &str {
    registry.strip_suffix(":443").unwrap_or(registry)
}

/// An image without its tag and its digest.
pub fn without_tag(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rsplit_once(':') {
        // Otherwise this is the port of the registry.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

/// The different images without tags, unless they are too many or too long to be kept.
pub fn distinct<'a>(images: impl Iterator<Item = &'a str>) -> Option<Vec<String>> {
    let images: BTreeSet<_> = images.map(without_tag).collect();
    let is_small = images.len() <= MAX_IMAGES && images.iter().all(|image| image.len() <= MAX_IMAGE_LENGTH);
    is_small.then(|| images.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_and_a_digest_are_not_part_of_the_name() {
        for (image, name) in [
            ("contoso.azurecr.io/team/app", "contoso.azurecr.io/team/app"),
            ("contoso.azurecr.io/team/app:1", "contoso.azurecr.io/team/app"),
            ("contoso.azurecr.io/app:1@sha256:00", "contoso.azurecr.io/app"),
            ("contoso.azurecr.io:443/app", "contoso.azurecr.io:443/app"),
            ("contoso.azurecr.io:443/app:1", "contoso.azurecr.io:443/app"),
            ("busybox:1", "busybox"),
        ] {
            assert_eq!(without_tag(image), name, "{image}");
        }
    }

    #[test]
    fn only_a_limited_number_of_images_is_kept() {
        let image = |n: usize| format!("contoso.azurecr.io/app-{n}:1");
        let kept = |count: usize| {
            let images: Vec<_> = (0..count).map(image).collect();
            distinct(images.iter().map(String::as_str)).map(|images| images.len())
        };
        assert_eq!(kept(MAX_IMAGES), Some(MAX_IMAGES));
        assert_eq!(kept(MAX_IMAGES + 1), None);
        let long = format!("contoso.azurecr.io/{}", "a".repeat(MAX_IMAGE_LENGTH));
        assert_eq!(distinct([long.as_str()].into_iter()), None);
    }
}
