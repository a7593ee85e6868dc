//! The custom resource definitions of the types in `src/`, as manifests for kustomize and for the chart.

use crate::{DocumentError, files::GeneratedFile};
use acr_pull_webhook::crds;

/// One manifest for kustomize and one for the chart for each definition.
pub fn manifests() -> Result<Vec<GeneratedFile>, DocumentError> {
    let own = crds::own().into_iter().map(|crd| ("crds", crd));
    let generators = crds::generators().into_iter().map(|crd| ("generators", crd));
    let mut files = Vec::new();
    for (folder, crd) in own.chain(generators) {
        let name = &crd.spec.names.plural;
        let yaml = serde_saphyr::to_string(&crd).map_err(|error| DocumentError::Wrong(error.to_string()))?;
        files.push(GeneratedFile::new(
            format!("deploy/kustomize/{folder}/{name}.yaml"),
            yaml.clone(),
        ));
        files.push(GeneratedFile::new(
            format!("deploy/chart/files/crds/{name}.yaml"),
            yaml,
        ));
    }
    Ok(files)
}
