//! Prints the custom resource definitions as the types in src/ have them, for `make crds`.

use acr_pull_webhook::crds;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    for crd in crds::own().into_iter().chain(crds::generators()) {
        print!("---\n{}", serde_saphyr::to_string(&crd)?);
    }
    Ok(())
}
