//! The subcommands `check` and `explain`: find out with the caller's permissions whether the installation works, why a
//! pull does not, and what the webhook does with a Pod.

mod api;
mod certificates;
mod crds;
mod deployment;
mod explain;
mod issuer;
mod lease;
mod permissions;
mod policies;
mod pull;
mod reason;
mod registration;
mod replicas;
mod report;
mod round_trip;
mod selector;
mod settings;
mod target;

pub use reason::REASONS;
pub use report::Report;

use crate::{
    cli::{CheckArgs, CommonArgs, ExplainArgs, Output, Part},
    generator::ResolveRules,
    kubernetes,
    names::{NamespaceName, ObjectName},
    pull_secret::PullSecretRequest,
    registry::ImageName,
    transport,
    untrusted::UntrustedText,
};
use api::{ApiServer, Unread, text};
use explain::Subject;
use pull::{Environment, Pull};
use reason::Reason;
use report::{Finding, Status};
use settings::Settings;
use std::{process::ExitCode, time::Duration};
use target::Target;
use tokio::time::{Instant, sleep};

/// The namespace of the test Pod, if the caller names none.
const DEFAULT_NAMESPACE: &str = "default";
/// The pause between two runs of the checks.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// The oldest minor version of Kubernetes 1 that is supported.
pub const OLDEST_MINOR: u32 = 30;

/// Runs `check` and prints the report.
pub async fn run(args: &CheckArgs) -> ExitCode {
    let deadline = Instant::now() + args.wait;
    loop {
        let report = check(args).await;
        let is_well = matches!(report.status(), Status::Ok | Status::Warning);
        if is_well || Instant::now() + RETRY_PAUSE > deadline {
            return print(&report, args.common.output);
        }
        eprintln!("not well yet: {}; trying again", report.reasons().join(", "));
        sleep(RETRY_PAUSE).await;
    }
}

/// Runs `explain` and prints the report.
pub async fn run_explain(args: &ExplainArgs) -> ExitCode {
    print(&explain(args).await, args.common.output)
}

fn print(report: &Report, output: Output) -> ExitCode {
    match output {
        Output::Text => print!("{report}"),
        Output::Json => println!("{}", report.json()),
    }
    report.exit_code()
}

/// What all checks need.
struct Session {
    api: ApiServer,
    target: Target,
    settings: Settings,
    rules: ResolveRules,
    http: reqwest::Client,
}

impl Session {
    /// Connects to the API server and finds the installation. An error is a finding that makes all checks impossible.
    /// `needs_settings` is whether a check depends on the flags of the webhook.
    async fn open(
        common: &CommonArgs,
        needs_settings: bool,
        findings: &mut Vec<Finding>,
    ) -> Result<Self, Finding> {
        let api = connect(common.context.as_deref(), findings).await?;
        let target = Target::find(&api, common.webhook_namespace.as_deref()).await;
        let own = &common.serve_flags;
        let settings = match &target.deployment {
            Ok(deployment) => {
                let (settings, about) = Settings::of(&api, deployment, own).await?;
                findings.extend(about);
                settings
            }
            Err(unread) => {
                if needs_settings && !matches!(unread, Unread::NotFound) {
                    let message = "the flags of the running webhook could not be read: the defaults of serve apply, and \
                                   flags that you add after --";
                    findings.push(Finding::warning("settings", Reason::NotPermitted, message));
                }
                Settings::local(own)
                    .map_err(|why| Finding::failed("settings", Reason::InputInvalid, why.trim().to_owned()))?
            }
        };
        let rules = Environment::rules(&target, &settings)?;
        let http = transport::client_trusting(settings.extra_ca.as_deref())
            .map_err(|error| Finding::failed("settings", Reason::SettingsInvalid, error.to_string()))?;
        Ok(Self {
            api,
            target,
            settings,
            rules,
            http,
        })
    }

    fn environment(&self) -> Environment<'_> {
        Environment {
            api: &self.api,
            target: &self.target,
            settings: &self.settings,
            rules: &self.rules,
            http: &self.http,
        }
    }

    /// The findings about the installation.
    async fn installation(&self) -> Vec<Finding> {
        let Self {
            api,
            target,
            settings,
            ..
        } = self;
        let pods = deployment::pods(api, target).await;
        let mut findings = crds::check(api).await;
        findings.extend(deployment::check(target, &pods));
        findings.extend(replicas::check(api, target, &pods).await);
        findings.extend(registration::check(
            target,
            &settings.serve.tls.webhook_configuration,
            settings.is_cluster_wide(),
        ));
        findings.extend(registration::check_service(api, target).await);
        findings.extend(certificates::check(api, target, settings).await);
        findings.extend(policies::check(api, target).await);
        findings.extend(lease::check(api, target, settings).await);
        findings.extend(permissions::check(api, target, settings).await);
        findings
    }

    /// Adds the findings about each pull in this namespace.
    async fn pulls(&self, args: &CheckArgs, namespace: &str, report: &mut Report) -> Result<(), Finding> {
        let invalid = |what: &str, value: &str| {
            let message = format!("{} is not a valid {what}", UntrustedText::quoted(value));
            Finding::failed("arguments", Reason::InputInvalid, message)
        };
        let namespace = NamespaceName::new(namespace).ok_or_else(|| invalid("namespace name", namespace))?;
        let account = ObjectName::new(&args.service_account);
        let account = account.ok_or_else(|| invalid("service account name", &args.service_account))?;
        let image = args.image.as_deref();
        let parse = |image| ImageName::parse(image).ok_or_else(|| invalid("image with a registry", image));
        let image = image.map(parse).transpose()?;
        let environment = self.environment();
        let unselected = pull::namespace_finding(&environment, &namespace).await;
        report.add(format!("namespace {namespace}"), unselected.into_iter().collect());
        for reference in pull::references(&self.api, &namespace, args.generator.as_deref()).await? {
            let section =
                format!("pull with {reference} in namespace {namespace}, service account {account}");
            let pull = Pull {
                environment: &environment,
                request: PullSecretRequest::new(&namespace, reference, Some(&account)),
                image: image.clone(),
            };
            report.add(section, pull.check().await);
        }
        Ok(())
    }
}

/// Connects to the API server.
async fn connect(context: Option<&str>, findings: &mut Vec<Finding>) -> Result<ApiServer, Finding> {
    const CHECK: &str = "API server";
    let unreachable = |why: String| Finding::unknown(CHECK, Reason::ApiServerUnreachable, why);
    let client = match context {
        Some(context) => kubernetes::client_of_context(context).await,
        None => kubernetes::client().await,
    };
    let client = client.map_err(|error| unreachable(error.to_string()))?;
    let api = ApiServer { client };
    let version = match api.get("/version").await {
        Ok(version) => version,
        Err(Unread::Unreachable(why)) => return Err(unreachable(format!("it could not be reached: {why}"))),
        Err(unread) => return Err(unread.finding(CHECK, "the version of Kubernetes")),
    };
    let minor = text(&version, "/minor").trim_end_matches(|c: char| !c.is_ascii_digit());
    let shown = UntrustedText::new(text(&version, "/gitVersion"));
    findings.push(match minor.parse::<u32>() {
        Ok(minor) if minor < OLDEST_MINOR => {
            let message =
                format!("Kubernetes {shown} is not supported; upgrade to 1.{OLDEST_MINOR} or newer");
            Finding::failed(CHECK, Reason::KubernetesTooOld, message)
        }
        _ => Finding::ok(CHECK, format!("Kubernetes {shown} answers")),
    });
    Ok(api)
}

async fn check(args: &CheckArgs) -> Report {
    let mut report = Report::default();
    let mut findings = Vec::new();
    let needs_settings = args.includes(Part::Pull) && args.namespace.is_some();
    let session = match Session::open(&args.common, needs_settings, &mut findings).await {
        Ok(session) => session,
        Err(finding) => {
            findings.push(finding);
            report.add("installation", findings);
            return report;
        }
    };
    if args.includes(Part::Installation) {
        findings.extend(session.installation().await);
    }
    report.add("installation", findings);
    if args.includes(Part::Issuer) {
        report.add("issuer", issuer::check(&session.api, &session.http).await);
    }
    if args.includes(Part::RoundTrip) {
        let namespace = args.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        report.add(
            "round trip",
            round_trip::check(&session.api, &session.target, namespace).await,
        );
    }
    if args.includes(Part::Pull)
        && let Some(namespace) = &args.namespace
        && let Err(finding) = session.pulls(args, namespace, &mut report).await
    {
        report.add("pull", vec![finding]);
    }
    report
}

async fn explain(args: &ExplainArgs) -> Report {
    let mut report = Report::default();
    let mut findings = Vec::new();
    let session = Session::open(&args.common, true, &mut findings).await;
    // A finding that is well has no place in an explanation.
    findings.retain(|finding| finding.status != Status::Ok);
    let session = match session {
        Ok(session) => session,
        Err(finding) => {
            findings.push(finding);
            report.add("webhook", findings);
            return report;
        }
    };
    report.add("webhook", findings);
    match subjects(args, &session.api).await {
        Err(finding) => report.add("object", vec![finding]),
        Ok(subjects) => {
            for subject in subjects {
                let section = format!("{} {}/{}", subject.kind.name, subject.namespace, subject.name());
                report.add(section, explain::explain(&session.environment(), &subject).await);
            }
        }
    }
    report
}

async fn subjects(args: &ExplainArgs, api: &ApiServer) -> Result<Vec<Subject>, Finding> {
    let namespace = args
        .namespace
        .as_deref()
        .unwrap_or_else(|| api.client.default_namespace());
    let namespace = NamespaceName::new(namespace).ok_or_else(|| {
        let message = format!(
            "{} is not a valid namespace name",
            UntrustedText::quoted(namespace)
        );
        Finding::failed("arguments", Reason::InputInvalid, message)
    })?;
    match (&args.file, &args.object) {
        (Some(file), _) => Subject::load(file, &namespace),
        (None, object) => {
            let object = object.as_deref().unwrap_or_default();
            Ok(vec![Subject::fetch(api, object, &namespace).await?])
        }
    }
}
