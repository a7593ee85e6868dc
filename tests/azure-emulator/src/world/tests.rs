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
fn a_small_world_is_read_with_azures_defaults() {
    let world = World::parse(&registry("    rights: []\n")).unwrap();
    let contoso = world.registry("contoso.azurecr.io").unwrap();
    assert!(contoso.accept_arm_tokens && !contoso.abac);
    assert_eq!(contoso.audiences, ["https://containerregistry.azure.net"]);
    assert_eq!(
        world.spec.tokens.acr_refresh_lifetime,
        Duration::from_secs(3 * 3600)
    );
    assert_eq!(world.spec.clock.tolerance, Duration::from_secs(300));
}

#[test]
fn an_unknown_field_is_refused_by_place_and_name() {
    let message = refusal("tenants:\n  - id: x\n    aplications: []\n");
    assert!(message.starts_with("world:3:5: "), "{message}");
    assert!(
        message.contains("aplications") && message.contains("applications"),
        "{message}"
    );
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn yaml_that_is_none_is_refused_by_place() {
    let message = refusal("tenants: [\n");
    assert!(message.starts_with("world:"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn rights_of_an_unknown_application_are_refused() {
    let message = refusal(&registry(
        "    rights:\n      - {clientId: 72f988bf-0000-0000-0000-00000000000b, repositories: [a], actions: [pull]}\n",
    ));
    assert!(
        message.contains("registries[0].rights[0].clientId")
            && message.contains("has no application or managed identity"),
        "{message}"
    );
}

#[test]
fn a_repository_pattern_with_a_star_inside_is_refused() {
    let message = refusal(&registry(&format!(
        "    rights:\n      - {{clientId: {APP}, repositories: ['a/*/b'], actions: [pull]}}\n"
    )));
    assert!(message.contains("rights[0].repositories[0]"), "{message}");
}

#[test]
fn an_upstream_that_is_not_plain_http_is_refused() {
    let yaml = registry("").replace("http://127", "https://127");
    assert!(
        refusal(&yaml).contains("registries[0].upstream"),
        "{}",
        refusal(&yaml)
    );
}

#[test]
fn an_issuer_has_exactly_one_source_of_keys() {
    for issuer in ["{issuer: a}", "{issuer: a, jwksFile: x, jwksUrl: 'http://y'}"] {
        assert!(
            refusal(&format!("issuers: [{issuer}]")).contains("exactly one of"),
            "{issuer}"
        );
    }
    assert!(refusal("issuers: [{issuer: a, jwks: {keys: []}}]").contains("holds no key"));
}

#[test]
fn ids_are_guids_and_given_once() {
    assert!(refusal("tenants: [{id: contoso}]").contains("tenants[0].id: `contoso` is not a GUID"));
    assert!(refusal(&format!("tenants: [{{id: {TENANT}}}, {{id: {TENANT}}}]")).contains("given twice"));
}

#[test]
fn tenants_and_applications_are_found_without_regard_to_case() {
    let world = World::parse(&format!(
        "tenants: [{{id: {TENANT}, domains: [contoso.onmicrosoft.com], applications: [{{clientId: {APP}}}]}}]"
    ))
    .unwrap();
    let tenant = world.tenant("Contoso.onMicrosoft.com").unwrap();
    assert!(tenant.application(&APP.to_uppercase()).is_some());
    assert!(world.tenant("fabrikam.onmicrosoft.com").is_none());
}

fn managed(identities: &str) -> String {
    format!("tenants: [{{id: {TENANT}}}]\nmanagedIdentities: [{identities}]\n")
}

#[test]
fn rights_may_name_a_managed_identity_of_the_registrys_tenant() {
    const OTHER: &str = "72f988bf-0000-0000-0000-000000000002";
    let world = |tenant: &str| {
        let right = format!("    rights: [{{clientId: {TENANT}, repositories: [a], actions: [pull]}}]\n");
        registry(&right).replacen("tenants: [", &format!("tenants: [{{id: {OTHER}}}, "), 1)
            + &format!("managedIdentities: [{{clientId: {TENANT}, tenant: {tenant}}}]\n")
    };
    assert!(World::parse(&world(TENANT)).is_ok());
    assert!(refusal(&world(OTHER)).contains("has no application or managed identity"));
}

#[test]
fn mistaken_managed_identities_are_refused_by_place() {
    for (identities, part) in [
        (
            "{clientId: x, tenant: x}".to_owned(),
            "[0].clientId: `x` is not a GUID",
        ),
        (
            format!("{{clientId: {APP}, tenant: {APP}}}"),
            "[0].tenant: there is no tenant",
        ),
        (
            format!("{{clientId: {APP}, tenant: {TENANT}, objectId: x}}"),
            "[0].objectId: `x` is not a GUID",
        ),
        (
            format!("{{clientId: {APP}, tenant: {TENANT}, resourceId: puller}}"),
            "[0].resourceId: `puller` does not begin with /subscriptions/",
        ),
        (
            format!("{{clientId: {APP}, tenant: {TENANT}}}, {{clientId: {APP}, tenant: {TENANT}}}"),
            "[1].clientId: `72f988bf-0000-0000-0000-00000000000a` is given twice",
        ),
        (
            format!(
                "{{clientId: {APP}, tenant: {TENANT}, systemAssigned: true}}, {{clientId: {TENANT}, tenant: {TENANT}, systemAssigned: true}}"
            ),
            "[1].systemAssigned: managedIdentities[0] is it already",
        ),
    ] {
        let message = refusal(&managed(&identities));
        assert!(message.contains(&format!("managedIdentities{part}")), "{message}");
    }
    let message = refusal("appService: {identityHeader: 'not one word'}");
    assert!(
        message.contains("appService.identityHeader") && !message.contains("one word"),
        "{message}"
    );
}

#[test]
fn an_authority_host_is_a_host_name() {
    for host in ["localhost", "https://login.stack.example/", "login..example", ""] {
        let message = refusal(&format!("authorityHosts: ['{host}']"));
        assert!(message.contains("authorityHosts[0]"), "{message}");
    }
    let world = World::parse("authorityHosts: [Login.Stack.example.]").unwrap();
    assert!(world.is_login_host("login.stack.example") && world.is_login_host("login.microsoftonline.de"));
    assert!(!world.is_login_host("stack.example"));
}
