//! Lists of a Pod with a maximum length.

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use std::{fmt, marker::PhantomData};

/// A list with a maximum length. Without it, a small body could take much memory, because an item of three bytes of
/// JSON takes ten times as much memory.
#[derive(Debug)]
pub struct BoundedList<T>(pub Vec<T>);

/// The items of a `BoundedList`.
pub trait ListItem {
    /// The name of the items in messages.
    const PLURAL: &'static str;
    /// The maximum number of items.
    const MAX_ITEMS: usize;
}

impl<'de, T: ListItem + Deserialize<'de>> Deserialize<'de> for BoundedList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedListVisitor(PhantomData))
    }
}

struct BoundedListVisitor<T>(PhantomData<T>);

impl<'de, T: ListItem + Deserialize<'de>> Visitor<'de> for BoundedListVisitor<T> {
    type Value = BoundedList<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", T::PLURAL)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() == T::MAX_ITEMS {
                let why = format!("the Pod has more than {} {}", T::MAX_ITEMS, T::PLURAL);
                return Err(Error::custom(why));
            }
            list.push(item);
        }
        Ok(BoundedList(list))
    }
}
