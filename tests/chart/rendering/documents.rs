//! The commands of the documents, parsed by the programs that they call.

use acr_pull_webhook::Cli;
use chart::{
    Run, helm,
    kubectl::kubectl,
    repository,
    shell::{self, Call},
};
use clap::CommandFactory;
use serde_json::Value;
use std::collections::BTreeSet;

/// The webhook's program as a plugin of kubectl.
const PLUGIN: &str = "acr-pull";
/// Verbs of kubectl whose next word is a verb too.
const GROUPS: [&str; 3] = ["create", "rollout", "config"];

fn calls_of(program: &str) -> Vec<&'static Call> {
    let calls = shell::calls().iter();
    let calls: Vec<_> = calls.filter(|call| call.program == program).collect();
    assert!(!calls.is_empty(), "the documents call {program}");
    calls
}

/// The arguments with `--help` before `--`. Programs that use cobra parse all flags first.
fn with_help(call: &Call) -> Vec<String> {
    let mut arguments = call.arguments.clone();
    let end = arguments.iter().position(|argument| argument == "--");
    arguments.insert(end.unwrap_or(arguments.len()), "--help".to_owned());
    arguments
}

#[testkit::test]
async fn kubectl_accepts_every_command_of_the_documents() {
    let is_plugin = |call: &&&Call| call.arguments[0] == PLUGIN;
    for call in calls_of("kubectl").iter().filter(|call| !is_plugin(call)) {
        let help = kubectl().args(with_help(call)).outcome().await;
        let help = help.unwrap_or_else(|error| panic!("{}: {:?}: {error}", call.place, call.arguments));
        if let [group, verb, ..] = &call.arguments[..]
            && GROUPS.contains(&group.as_str())
        {
            let usage = format!("kubectl {group} {verb}");
            assert!(help.contains(&usage), "{}: {usage} is not a command", call.place);
        }
        assert_json(call, &["--patch", "--overrides"]);
    }
}

/// Asserts that the values of these flags are JSON.
fn assert_json(call: &Call, flags: &[&str]) {
    for pair in call
        .arguments
        .windows(2)
        .filter(|pair| flags.contains(&pair[0].as_str()))
    {
        let parsed = serde_json::from_str::<Value>(&pair[1]);
        assert!(parsed.is_ok(), "{}: {} is not JSON", call.place, pair[1]);
    }
}

#[test]
fn the_webhooks_program_accepts_every_command_of_the_documents() {
    let by_kubectl = calls_of("kubectl").into_iter();
    let by_kubectl = by_kubectl.filter(|call| call.arguments[0] == PLUGIN);
    let by_kubectl = by_kubectl.map(|call| (call, &call.arguments[1..]));
    let by_name = calls_of("acr-pull-webhook").into_iter();
    let all = by_name.map(|call| (call, &call.arguments[..])).chain(by_kubectl);
    for (call, arguments) in all {
        let words = ["acr-pull-webhook"]
            .into_iter()
            .chain(arguments.iter().map(String::as_str));
        let parsed = Cli::command().try_get_matches_from(words);
        assert!(parsed.is_ok(), "{}: {arguments:?}: {parsed:?}", call.place);
    }
}

/// docs/check.md links the program under this name.
#[testkit::test]
async fn kubectl_finds_the_plugin_by_the_name_in_the_documents() {
    let link = calls_of("ln")[0].arguments.last().unwrap();
    let (_, name) = link.rsplit_once('/').unwrap();
    let folder = tempfile::TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
    std::os::unix::fs::symlink("/bin/echo", folder.path().join(name)).unwrap();
    let run = kubectl()
        .env("PATH", folder.path())
        .args([PLUGIN, "check", "--only=issuer"]);
    assert_eq!(run.succeed().await, "check --only=issuer\n");
}

#[testkit::test]
async fn helm_accepts_every_command_of_the_documents() {
    for call in calls_of("helm") {
        let (verb, rest) = call.arguments.split_first().unwrap();
        let rest = Call {
            arguments: rest.to_vec(),
            ..call.clone()
        };
        let help = helm::helm(verb).args(with_help(&rest)).outcome().await;
        assert!(help.is_ok(), "{}: {:?}: {help:?}", call.place, call.arguments);
    }
}

#[testkit::test]
async fn the_chart_accepts_every_value_that_the_documents_set() {
    let mut rendered = 0;
    for call in calls_of("helm") {
        if !call.arguments.iter().any(|argument| argument == "deploy/chart") {
            continue;
        }
        let values = call
            .arguments
            .windows(2)
            .filter(|pair| pair[0].starts_with("--set"));
        let flags: Vec<_> = values
            .flat_map(|pair| [pair[0].clone(), pair[1].clone()])
            .collect();
        let outcome = helm::release("template").args(&flags).outcome().await;
        assert!(outcome.is_ok(), "{}: {flags:?}: {outcome:?}", call.place);
        rendered += usize::from(!flags.is_empty());
    }
    assert!(rendered >= 3, "{rendered} commands set values");
}

#[testkit::test]
async fn jq_compiles_every_program_of_the_documents() {
    for call in calls_of("jq") {
        let program = call
            .arguments
            .iter()
            .rfind(|argument| !argument.starts_with('-'))
            .unwrap();
        let definition = format!("def documented: {program}; empty");
        let compiled = Run::new("jq").args(["--null-input", &definition]).outcome().await;
        assert!(compiled.is_ok(), "{}: {program}: {compiled:?}", call.place);
    }
}

#[test]
fn make_has_every_target_of_the_documents() {
    let makefile = std::fs::read_to_string(repository("Makefile")).unwrap();
    let targets: BTreeSet<_> = makefile
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name)
        .collect();
    for call in calls_of("make") {
        for word in call.arguments.iter().filter(|word| !word.contains('=')) {
            assert!(
                targets.contains(word.as_str()),
                "{}: make has no target {word}",
                call.place
            );
        }
    }
}

/// azure-cli's own parser, without network.
#[testkit::test]
async fn az_accepts_every_command_of_the_documents() {
    let calls = calls_of("az");
    let input: Vec<_> = calls
        .iter()
        .map(|call| serde_json::json!({"place": call.place, "arguments": call.arguments}))
        .collect();
    let python = testkit::programs::built_by("tools/azure-cli/setup.sh");
    let parse = Run::new(python).arg(repository("tools/azure-cli/parse.py"));
    let outcome = parse.input(Value::Array(input).to_string()).outcome().await;
    let accepted =
        outcome.unwrap_or_else(|error| panic!("azure-cli refuses commands of the documents:\n{error}"));
    assert_eq!(accepted.trim(), format!("{} commands", calls.len()));
}
