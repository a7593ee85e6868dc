use super::*;

const TENANT: &str = "72f988bf-0000-0000-0000-000000000001";
const APP: &str = "72f988bf-0000-0000-0000-00000000000a";

fn refusal(yaml: &str) -> String {
    World::parse(yaml).unwrap_err().to_string()
}

fn registry(fields: &str) -> String {
    format!(
        "tenants: [{{id: {TENANT}, applications: [{{clientId: {APP}}}]}}]\n\
         registries:\n  - host: contoso.azurecr.io\n    tenant: {TENANT}\n    upstream: http://127.0.0.1:5000\n{fields}"
    )
}

#[test]
fn a_small_world_has_azures_defaults() {
    let world = World::parse(&registry("")).unwrap();
    assert!(world.registry("contoso.azurecr.io").is_some());
    assert_eq!(
        world.spec.tokens.acr_refresh_lifetime,
        Duration::from_secs(3 * 3600)
    );
    assert_eq!(world.spec.clock.offset, SignedDuration::ZERO);
}

#[test]
fn an_unknown_field_is_refused_with_its_line_and_name() {
    let message = refusal("tenants:\n  - id: x\n    aplications: []\n");
    assert!(message.starts_with("world:3:5: "), "{message}");
    assert!(message.contains("aplications"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn invalid_yaml_is_refused_with_its_line() {
    let message = refusal("tenants: [\n");
    assert!(message.starts_with("world:"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn a_mistake_in_a_registry_is_refused_with_its_field() {
    let right = |client_id: &str, pattern: &str| {
        registry(&format!(
            "    rights: [{{clientId: {client_id}, repositories: ['{pattern}'], actions: [pull]}}]\n"
        ))
    };
    assert!(World::parse(&right(APP, "a/*")).is_ok());
    for (yaml, expected) in [
        (right(TENANT, "a"), "rights[0].clientId: tenant"),
        (right(APP, "a/*/b"), "rights[0].repositories: `a/*/b`"),
        (
            registry("").replace("http://127", "https://127"),
            "upstream: `https",
        ),
        (
            registry("").replacen(TENANT, APP, 1),
            "tenant: there is no tenant",
        ),
    ] {
        let message = refusal(&yaml);
        assert!(
            message.starts_with(&format!("world: registries[0].{expected}")),
            "{message}"
        );
    }
}

#[test]
fn a_right_may_be_a_managed_identitys() {
    let right = format!("    rights: [{{clientId: {TENANT}, repositories: [a], actions: [pull]}}]\n");
    let identity = format!("managedIdentities: [{{clientId: {TENANT}, tenant: {TENANT}}}]\n");
    assert!(World::parse(&(registry(&right) + &identity)).is_ok());
}

#[test]
fn host_names_are_compared_without_case() {
    let world =
        World::parse("authorityHosts: [Login.Stack.example.]\nunreachableHosts: [A.Example]").unwrap();
    assert!(world.is_login_host("login.stack.example") && world.is_login_host("login.microsoftonline.de"));
    assert!(!world.is_login_host("stack.example"));
    assert!(world.is_unreachable("a.example"));
}

#[test]
fn a_duration_has_a_unit_and_is_not_negative() {
    for lifetime in ["12s", "75m", "69800000h"] {
        World::parse(&format!("tokens: {{acrRefreshLifetime: {lifetime}}}")).unwrap();
    }
    for lifetime in ["5", "-5s", "5 parsecs"] {
        let message = refusal(&format!("tokens: {{acrRefreshLifetime: {lifetime}}}"));
        assert!(message.starts_with("world:1:"), "{lifetime}: {message}");
    }
    let world = World::parse("clock: {offset: -280s}").unwrap();
    assert_eq!(world.spec.clock.offset, SignedDuration::from_secs(-280));
}
