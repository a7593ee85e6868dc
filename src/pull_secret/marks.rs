//! Takes the mark of a pull secret back that is about to be deleted, once for all Pods that need it.

use super::{ACRPullSecret, Writer};
use crate::{names::NamespacedName, problem::Problem};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::OnceCell;

/// Marks that were taken back are remembered until the watch shows it. A full map is cleared.
const MAX_MARKS: usize = 1024;

/// The uid and the resource version of an object.
type Version = (String, String);

/// The marks that are being taken back.
#[derive(Default)]
pub struct Marks(Mutex<HashMap<Version, Arc<OnceCell<bool>>>>);

impl Marks {
    /// Takes the mark of this object back. Returns whether the object still exists as it is known.
    pub async fn take_back(
        &self,
        key: &NamespacedName,
        marked: &ACRPullSecret,
        writer: &Writer,
    ) -> Result<bool, Problem> {
        let version = (
            marked.metadata.uid.clone().unwrap_or_default(),
            marked.metadata.resource_version.clone().unwrap_or_default(),
        );
        let cell = {
            let mut marks = self.0.lock();
            if marks.len() >= MAX_MARKS {
                marks.clear();
            }
            marks.entry(version).or_default().clone()
        };
        let exists = cell.get_or_try_init(|| writer.mark_used(key, marked)).await;
        exists.copied()
    }
}
