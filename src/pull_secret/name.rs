//! The name of a pull secret: a pure function of the generator and, where the generator uses it, the Pod's service
//! account. The name of a combination never changes, because the kubelet remembers pulled images by the Secret's
//! coordinates (KEP-2535).

use crate::{generator::ServiceAccount, names::ObjectName, reference::Reference};
use sha2::{Digest, Sha256};

/// The beginning of every name.
const PREFIX: &str = "acr-pull";
/// 40 bits distinguish names whose readable parts are equal.
const HASH_BYTES: usize = 5;

/// The name of the Secret, and of the `ACRPullSecret` that owns it.
pub fn name(generator: &Reference, account: &ServiceAccount) -> ObjectName {
    let mut hash = Sha256::new();
    hash.update(generator.kind.as_str());
    hash.update("\0");
    hash.update(&*generator.name);
    let mut names = vec![&generator.name];
    if let ServiceAccount::OfPod(service_account) = account {
        hash.update("\0");
        hash.update(&**service_account);
        names.push(service_account);
    }
    ObjectName::joined(PREFIX, &names, &hash.finalize()[..HASH_BYTES])
}

/// The name of a pull secret, if this text has the form of one.
pub fn parse_name(text: &str) -> Option<ObjectName> {
    let rest = text.strip_prefix(PREFIX)?.strip_prefix('-')?;
    ObjectName::new(text).filter(|_| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{names::NamespacedName, reference::Kind};
    use proptest::prelude::*;

    fn object(name: &str) -> ObjectName {
        ObjectName::new(name).unwrap()
    }

    fn own(name: &str) -> Reference {
        Reference {
            kind: Kind::AccessToken,
            name: object(name),
        }
    }

    fn of_pod(name: &str) -> ServiceAccount {
        ServiceAccount::OfPod(object(name))
    }

    fn generators(name: &str) -> ServiceAccount {
        ServiceAccount::Named(NamespacedName::new("team-a", name).unwrap())
    }

    const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?){0,4}";

    #[test]
    fn names_are_readable_and_do_not_change() {
        // Clusters hold objects of these names: a change would orphan every pull secret.
        assert_eq!(
            name(&own("contoso"), &of_pod("app")),
            "acr-pull-contoso-app-7a2226b454"
        );
        assert_eq!(
            name(&own("contoso"), &generators("app")),
            "acr-pull-contoso-55c603dd73"
        );
    }

    proptest! {
        #[test]
        fn names_are_valid_and_stable(generator in SUBDOMAIN, account in SUBDOMAIN) {
            for account in [of_pod(&account), generators(&account)] {
                let made = name(&own(&generator), &account);
                prop_assert!(parse_name(&made).as_ref() == Some(&made), "{}", made);
                prop_assert_eq!(made, name(&own(&generator), &account));
            }
        }

        #[test]
        fn different_inputs_have_different_names(a in SUBDOMAIN, b in SUBDOMAIN, x in SUBDOMAIN, y in SUBDOMAIN) {
            prop_assume!((&a, &x) != (&b, &y));
            prop_assert_ne!(name(&own(&a), &of_pod(&x)), name(&own(&b), &of_pod(&y)));
            prop_assert_ne!(name(&own(&a), &of_pod(&x)), name(&own(&a), &generators(&x)));
            let cluster = Reference { kind: Kind::ClusterGenerator, name: object(&a) };
            prop_assert_ne!(name(&own(&a), &of_pod(&x)), name(&cluster, &of_pod(&x)));
        }
    }

    #[test]
    fn generator_and_account_are_separated_in_the_hash() {
        assert_ne!(name(&own("a-b"), &of_pod("c")), name(&own("a"), &of_pod("b-c")));
    }
}
