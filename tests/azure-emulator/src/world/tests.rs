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
        message.contains("registries[0].rights[0].clientId") && message.contains("has no application"),
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
