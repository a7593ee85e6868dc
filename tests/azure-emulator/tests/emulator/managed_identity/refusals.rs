//! What IMDS and App Service refuse, and how each of them words it; faults included.

use azure_emulator::{Endpoint, Fault, World};

use super::*;

#[tokio::test]
async fn imds_refuses_what_it_does_not_understand() {
    let azure = Azure::start();
    let refusal =
        async |query: &str, headers: &[(&str, &str)]| described(&imds_with(&azure, query, headers).await);
    let without_header = (
        400,
        "bad_request_102".to_owned(),
        "Required metadata header not specified".to_owned(),
    );
    assert_eq!(refusal(IMDS_QUERY, &[]).await, without_header);
    assert_eq!(refusal(IMDS_QUERY, &[("Metadata", "True")]).await, without_header);
    for (query, headers, part) in [
        (IMDS_QUERY, &[METADATA, FORWARDED][..], "X-Forwarded-For"),
        ("api-version=2018-02-01", &[METADATA], "'resource' is missing"),
        ("resource=x", &[METADATA], "'api-version' is missing"),
        (
            "resource=x&api-version=2017-01-01",
            &[METADATA],
            "'2017-01-01' is not supported",
        ),
        (
            &format!("{IMDS_QUERY}&client_id={STRANGER}"),
            &[METADATA],
            "Identity not found",
        ),
        (
            &format!("{IMDS_QUERY}&client_id={WEB}"),
            &[METADATA],
            "Identity not found",
        ),
        (
            &format!("{IMDS_QUERY}&client_id={PULLER}&object_id=x"),
            &[METADATA],
            "Only one of",
        ),
    ] {
        let (status, error, text) = refusal(query, headers).await;
        assert_eq!((status, error.as_str()), (400, "invalid_request"), "{part}");
        assert!(text.contains(part), "{text}");
    }
    let unknown = refusal(
        "api-version=2019-08-01&resource=https://resource.example",
        &[METADATA],
    )
    .await;
    assert_eq!((unknown.0, unknown.1.as_str()), (400, "invalid_resource"));
    assert!(
        unknown.2.starts_with("AADSTS500011: "),
        "Entra's error, handed on: {}",
        unknown.2
    );
    let record = azure.emulator.requests().pop().unwrap();
    assert_eq!((record.aadsts, record.status), (Some(500011), Some(400)));

    let base = azure.emulator.imds_url().unwrap();
    assert_eq!(
        ask(format!("{base}/metadata/instance"), &[METADATA]).await.status,
        404
    );
    let post = azure
        .http
        .post(format!("{base}/metadata/identity/oauth2/token?{IMDS_QUERY}"));
    assert_eq!(Reply::of(post.header("Metadata", "true")).await.status, 405);
}

#[tokio::test]
async fn app_service_wants_its_header_and_refuses_what_it_does_not_understand() {
    let azure = Azure::start();
    let refusal = async |query: &str, headers: &[(&str, &str)]| {
        message(&app_service_with(&azure, query, headers).await)
    };
    assert_eq!(refusal(APP_SERVICE_QUERY, &[]).await.0, 401);
    assert_eq!(refusal(APP_SERVICE_QUERY, &[METADATA]).await.0, 401);
    assert_eq!(
        refusal(APP_SERVICE_QUERY, &[("X-IDENTITY-HEADER", "wrong")])
            .await
            .0,
        403
    );
    for (query, status, part) in [
        ("resource=x", 400, "'api-version'"),
        ("resource=x&api-version=2017-09-01", 400, "'2017-09-01'"),
        ("api-version=2019-08-01", 400, "'resource'"),
        (
            &format!("{APP_SERVICE_QUERY}&client_id={STRANGER}"),
            400,
            "No User Assigned or Delegated Managed Identity found",
        ),
        (
            &format!("{APP_SERVICE_QUERY}&client_id={PULLER}&mi_res_id=x"),
            400,
            "Only one of",
        ),
        (
            "api-version=2019-08-01&resource=https://resource.example",
            500,
            "fetching the AAD Token",
        ),
    ] {
        let (was, text) = refusal(query, &[RIGHT_HEADER]).await;
        assert!(was == status && text.contains(part), "{query}: {was} {text}");
    }
    let without = world_yaml("http://127.0.0.1:9").replace("appService:", "#");
    azure.emulator.apply(World::parse(&without).unwrap());
    let reply = app_service(&azure, "").await;
    assert_eq!(reply.status, 404, "no App Service, no endpoint");
    imds(&azure, "").await.ok();
}

#[tokio::test]
async fn without_a_system_assigned_identity_imds_takes_the_only_one_and_app_service_none() {
    let azure = Azure::start();
    let system = format!(
        "clientId: {MACHINE}, tenant: {TENANT}, resourceId: {MACHINE_RESOURCE}, systemAssigned: true"
    );
    let unassigned = world_yaml("http://127.0.0.1:9").replace(", systemAssigned: true", "");
    azure.emulator.apply(World::parse(&unassigned).unwrap());
    let (status, _, text) = described(&imds(&azure, "").await);
    assert!(
        status == 400 && text.starts_with("Multiple user assigned identities exist"),
        "{text}"
    );
    let unable = (400, "Unable to load the proper Managed Identity.".to_owned());
    assert_eq!(message(&app_service(&azure, "").await), unable);

    let tenant = format!("tenants: [{{id: {TENANT}}}]\n");
    let only = format!(
        "{tenant}managedIdentities: [{{clientId: {PULLER}, tenant: {TENANT}}}]\nappService: {{identityHeader: {IDENTITY_HEADER}}}\n"
    );
    azure.emulator.apply(World::parse(&only).unwrap());
    assert_eq!(imds(&azure, "").await.ok()["client_id"], PULLER);
    assert_eq!(message(&app_service(&azure, "").await), unable);

    azure.emulator.apply(World::parse(&tenant).unwrap());
    assert_eq!(described(&imds(&azure, "").await).2, "Identity not found");
    let system = format!("{tenant}managedIdentities: [{{{system}}}]\n");
    azure.emulator.apply(World::parse(&system).unwrap());
    assert_eq!(imds(&azure, "").await.ok()["client_id"], MACHINE);
}

#[tokio::test]
async fn an_identity_without_rights_gets_a_token_that_opens_nothing() {
    let azure = Azure::start();
    let document = imds(&azure, &format!("&client_id={IDLE}")).await.ok();
    let token = document["access_token"].as_str().unwrap();
    assert!(
        claims_of(token).get("xms_mirid").is_none(),
        "it has no resource id"
    );
    assert_eq!(azure.exchange(CONTOSO, token).await.status, 401);
}

#[tokio::test]
async fn faults_strike_each_endpoint_with_bodies_of_its_own() {
    let azure = Azure::start();
    let set = |fault: Fault| azure.emulator.set_faults(&[fault]).unwrap();
    for status in [404, 410, 429, 500, 503] {
        set(Fault {
            status: Some(status),
            retry_after: Some(3),
            times: Some(1),
            ..Fault::on(Endpoint::ImdsToken)
        });
        let reply = imds(&azure, "").await;
        assert_eq!((reply.status, reply.header("retry-after")), (status, "3"));
        assert!(reply.json()["error"].is_string() && reply.json()["error_description"].is_string());
        imds(&azure, "").await.ok();
    }
    set(Fault {
        status: Some(500),
        client_id: Some(PULLER.to_owned()),
        ..Fault::on(Endpoint::AppServiceToken)
    });
    app_service(&azure, "").await.ok();
    imds(&azure, &format!("&client_id={PULLER}")).await.ok();
    for more in [
        format!("&client_id={PULLER}"),
        format!("&mi_res_id={PULLER_RESOURCE}"),
    ] {
        let failed = message(&app_service(&azure, &more).await);
        assert_eq!(
            failed,
            (
                500,
                "An unexpected error occured while fetching the AAD Token.".to_owned()
            )
        );
    }
    set(Fault {
        aadsts: Some(7000112),
        ..Fault::on(Endpoint::ImdsToken)
    });
    let (status, error, text) = described(&imds(&azure, "").await);
    assert_eq!((status, error.as_str()), (400, "unauthorized_client"));
    assert!(text.starts_with("AADSTS7000112: "), "{text}");
    set(Fault {
        reset: true,
        ..Fault::on(Endpoint::ImdsToken)
    });
    let base = azure.emulator.imds_url().unwrap();
    let url = format!("{base}/metadata/identity/oauth2/token?{IMDS_QUERY}");
    assert!(azure.http.get(url).send().await.is_err());
}
