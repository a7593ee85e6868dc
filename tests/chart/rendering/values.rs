//! Values that the chart accepts, and values that it refuses.

use chart::{
    NAME,
    helm::{Version, chart, helm_of, refused, release_of, render, set, values_file},
    manifests::Manifests,
    repository,
    values::{INVALID, PEM, VALID, every_authority, provided, text},
};

#[testkit::test]
async fn helm_lint_reports_nothing() {
    for version in Version::ALL {
        for flags in [Vec::new(), provided("mine")] {
            let lint = helm_of(version, "lint").arg("--strict").arg(chart());
            let report = lint.args(flags).succeed().await;
            let expected = "1 chart(s) linted, 0 chart(s) failed";
            assert!(report.contains(expected), "{version:?}: {report}");
        }
    }
}

#[testkit::test]
async fn the_version_of_the_chart_is_that_of_the_program() {
    let chart = std::fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    let chart: serde_json::Value = serde_saphyr::from_str(&chart).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[testkit::test]
async fn every_valid_row_of_values_renders() {
    for row in VALID {
        render(set(row.iter().copied())).await;
    }
    for file in [
        "certs/cert-manager/values.yaml",
        "deploy/chart/values-openshift.yaml",
    ] {
        render(values_file(repository(file))).await;
    }
    let rendered = render(every_authority()).await;
    assert_eq!(
        rendered.option("CLIENT_CA_FILE"),
        "/etc/acr-pull-webhook/client-ca/ca.crt"
    );
}

#[testkit::test]
async fn every_invalid_value_is_refused_with_its_path() {
    for (value, path) in INVALID {
        let message = refused(set([*value])).await;
        assert!(
            message.contains(path),
            "{value} is refused without {path}: {message}"
        );
    }
}

#[testkit::test]
async fn a_ca_is_either_text_or_a_config_map() {
    let mut flags = text("extraCa.pem", PEM);
    flags.extend(set(["extraCa.configMap=ours"]));
    let message = refused(flags).await;
    assert!(message.contains("/extraCa/configMap"), "{message}");
}

/// The webhook would replace the certificate in that Secret with its secret path.
#[testkit::test]
async fn a_provided_certificate_has_a_secret_of_its_own() {
    let message = refused(provided(&format!("{NAME}-certificates"))).await;
    assert!(message.contains("certificates.provided.secretName"), "{message}");
}

#[testkit::test]
async fn helm_3_renders_the_same_objects_as_helm_4() {
    for row in VALID {
        let flags = set(row.iter().copied());
        let [three, four] = Version::ALL.map(|version| release_of(version, "template").args(&flags));
        // The versions of Helm print the hooks in different places, and quote texts differently.
        let [three, four] = [three.succeed().await, four.succeed().await].map(|text| sorted(&text));
        assert!(three == four, "{row:?}");
    }
}

/// The objects in one order.
fn sorted(text: &str) -> Vec<String> {
    let mut objects: Vec<_> = Manifests::parse(text).0.iter().map(ToString::to_string).collect();
    objects.sort();
    objects
}
