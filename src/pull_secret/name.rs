//! The name of a pull secret: a pure function of the generator and, where the generator uses it, the Pod's service
//! account. The name of a combination never changes, because the kubelet remembers pulled images by the Secret's
//! coordinates (KEP-2535).

use crate::{
    generator::{Reference, ServiceAccount},
    kubernetes::is_subdomain,
};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The prefix of every name.
const PREFIX: &str = "acr-pull-";
/// The longest name of a Secret (a DNS subdomain, RFC 1123).
const MAX_NAME: usize = 253;
/// 40 bits distinguish names whose readable parts are equal.
const HASH_BYTES: usize = 5;

/// The name of the Secret, and of the `ACRPullSecret` that owns it.
pub fn name(generator: Reference<'_>, account: ServiceAccount<'_>) -> String {
    let mut hash = Sha256::new();
    let mut readable = format!("{PREFIX}{}", generator.name);
    hash.update(generator.kind.as_str());
    hash.update("\0");
    hash.update(generator.name);
    if let ServiceAccount::OfPod(service_account) = account {
        hash.update("\0");
        hash.update(service_account);
        readable.push('-');
        readable.push_str(service_account);
    }
    // The annotation's grammar and the API server ensure that names are ASCII.
    readable.truncate(readable.floor_char_boundary(MAX_NAME - 1 - 2 * HASH_BYTES));
    let mut name = readable.trim_end_matches(['-', '.']).to_owned();
    name.push('-');
    for byte in &hash.finalize()[..HASH_BYTES] {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// Whether this name has the form of a pull secret's name.
pub fn is_pull_secret(name: &str) -> bool {
    name.len() > PREFIX.len() && name.starts_with(PREFIX) && is_subdomain(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Kind;
    use proptest::prelude::*;

    fn own(name: &str) -> Reference<'_> {
        let kind = Kind::AccessToken;
        Reference { kind, name }
    }

    fn generators(name: &str) -> ServiceAccount<'_> {
        let namespace = "team-a";
        ServiceAccount::Named { namespace, name }
    }

    const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?){0,4}";

    fn is_valid(name: &str) -> bool {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        name.len() <= MAX_NAME
            && name.split('.').all(|label| {
                edge(label.chars().next())
                    && edge(label.chars().last())
                    && label
                        .chars()
                        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            })
    }

    #[test]
    fn names_are_readable_and_do_not_change() {
        // Clusters hold objects of these names: a change would orphan every pull secret.
        assert_eq!(
            name(own("contoso"), ServiceAccount::OfPod("app")),
            "acr-pull-contoso-app-7a2226b454"
        );
        assert_eq!(
            name(own("contoso"), generators("app")),
            "acr-pull-contoso-55c603dd73"
        );
    }

    proptest! {
        #[test]
        fn names_are_valid_and_stable(generator in SUBDOMAIN, account in SUBDOMAIN) {
            for account in [ServiceAccount::OfPod(&account), generators(&account)] {
                let made = name(own(&generator), account);
                prop_assert!(is_valid(&made) && is_pull_secret(&made), "{}", made);
                prop_assert_eq!(made, name(own(&generator), account));
            }
        }

        #[test]
        fn different_inputs_have_different_names(a in SUBDOMAIN, b in SUBDOMAIN, x in SUBDOMAIN, y in SUBDOMAIN) {
            prop_assume!((&a, &x) != (&b, &y));
            prop_assert_ne!(name(own(&a), ServiceAccount::OfPod(&x)), name(own(&b), ServiceAccount::OfPod(&y)));
            prop_assert_ne!(name(own(&a), ServiceAccount::OfPod(&x)), name(own(&a), generators(&x)));
            let cluster = Reference { kind: Kind::ClusterGenerator, name: &a };
            prop_assert_ne!(name(own(&a), ServiceAccount::OfPod(&x)), name(cluster, ServiceAccount::OfPod(&x)));
        }
    }

    #[test]
    fn generator_and_account_are_separated_in_the_hash() {
        assert_ne!(
            name(own("a-b"), ServiceAccount::OfPod("c")),
            name(own("a"), ServiceAccount::OfPod("b-c"))
        );
    }
}
