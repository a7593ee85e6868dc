//! The places of a Pod in which an image can stand.

use crate::{admission::bounded_list::ListItem, text::Text};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct Container<'a> {
    #[serde(borrow, default)]
    pub image: Option<Text<'a>>,
}

impl ListItem for Container<'_> {
    const PLURAL: &'static str = "containers of one kind";
    const MAX_ITEMS: usize = 1000;
}

/// A volume. The kubelet pulls the image of an image volume with the Pod's pull secrets.
/// Source: <https://kubernetes.io/docs/concepts/storage/volumes/#image>.
#[derive(Debug, Deserialize)]
pub struct Volume<'a> {
    #[serde(borrow, default)]
    pub image: Option<ImageVolume<'a>>,
}

#[derive(Debug, Deserialize)]
pub struct ImageVolume<'a> {
    #[serde(borrow, default)]
    pub reference: Option<Text<'a>>,
}

impl ListItem for Volume<'_> {
    const PLURAL: &'static str = "volumes";
    const MAX_ITEMS: usize = 1000;
}

/// The name of a registry without the default port of HTTPS.
pub fn without_port(registry: &str) -> &str {
    registry.strip_suffix(":443").unwrap_or(registry)
}
