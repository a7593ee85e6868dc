//! A table of broken set-ups: how each is broken, the reason that is found, and what corrects it.

use super::installation::{Installation, Report};
use azure_emulator::Fault;
use serde_json::{Value, json};
use testkit::{
    azure::REGISTRY,
    eventually,
    objects::{pull_secret_names, unnamed_pod},
};

/// How a set-up is broken.
pub enum Break {
    /// By nothing: the arguments themselves are wrong.
    No,
    /// By a script, in which TEAM_A is the namespace of team A.
    Shell(&'static str),
    /// By a change of Azure.
    Azure(fn(&mut Value)),
    /// By requests that fail.
    Fault(fn() -> Fault),
}

/// What corrects a set-up.
pub enum Fix {
    /// The printed commands of kubectl, with values for these placeholders.
    Printed(&'static [(&'static str, &'static str)]),
    /// The printed command of az, whose arguments change Azure.
    Az,
    /// A script.
    Shell(&'static str),
    /// Azure as it was, without faults.
    Azure,
}

pub struct Row {
    pub name: &'static str,
    pub how: Break,
    /// The arguments that find the reason; empty for those of the table.
    pub arguments: &'static str,
    pub reason: &'static str,
    pub code: i32,
    pub fix: Fix,
}

/// A row with the arguments of its table and exit status 1.
pub fn row(name: &'static str, how: Break, reason: &'static str, fix: Fix) -> Row {
    Row {
        name,
        how,
        arguments: "",
        reason,
        code: 1,
        fix,
    }
}

impl Row {
    pub fn with_arguments(mut self, arguments: &'static str) -> Self {
        self.arguments = arguments;
        self
    }

    pub fn with_code(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    /// Breaks the set-up, checks it, corrects it, and checks that it is well. `arguments` are those of the table, with
    /// the subcommand.
    pub async fn run(&self, installation: &Installation, arguments: &str) {
        println!("{}", self.name);
        let azure = &installation.env.azure;
        match self.how {
            Break::No => {}
            Break::Shell(line) => installation.shell(line).await,
            Break::Azure(change) => {
                let mut world = installation.azure.clone();
                change(&mut world);
                azure.apply(&world);
            }
            Break::Fault(fault) => azure.set_faults(&[fault()]),
        }
        let own = if self.arguments.is_empty() {
            arguments
        } else {
            self.arguments
        };
        let report = self.found(installation, own).await;
        self.correct(installation, own, report).await;
        eventually(&format!("{} is corrected", self.name), async || {
            let report = installation.run(arguments).await;
            testkit::observe(json!(report.findings()));
            (report.code == 0).then_some(())
        })
        .await;
    }

    /// The report with the reason, which a controller may delay.
    async fn found(&self, installation: &Installation, arguments: &str) -> Report {
        eventually(&format!("{}: {} is found", self.name, self.reason), async || {
            let report = installation.run(arguments).await;
            let is_found = report.has(self.reason) && report.code == self.code;
            testkit::observe(format!(
                "exit status {}: {}",
                report.code,
                json!(report.findings())
            ));
            is_found.then_some(report)
        })
        .await
    }

    async fn correct(&self, installation: &Installation, arguments: &str, mut report: Report) {
        let azure = &installation.env.azure;
        match &self.fix {
            Fix::Shell(line) => installation.shell(line).await,
            Fix::Azure => {
                azure.clear_faults();
                azure.apply(&installation.azure);
            }
            Fix::Az => {
                let commands = report.commands();
                let command = commands.iter().find(|command| command.starts_with("az "));
                let mut world = installation.azure.clone();
                if let Break::Azure(change) = self.how {
                    change(&mut world);
                }
                let client_id = installation.env.team_a.client_id;
                run_az(
                    &mut world,
                    client_id,
                    command.unwrap_or_else(|| panic!("{}: {report:#?}", self.name)),
                );
                azure.apply(&world);
            }
            Fix::Printed(placeholders) => {
                // The correction of one object may show what is missing in the next one.
                for _ in 0..3 {
                    run_printed(self.name, installation, &report, placeholders).await;
                    report = installation.run(arguments).await;
                    if report.code == 0 {
                        break;
                    }
                }
            }
        }
    }
}

/// Runs the printed commands that change the cluster.
async fn run_printed(row: &str, installation: &Installation, report: &Report, placeholders: &[(&str, &str)]) {
    let reads = ["kubectl get", "kubectl describe", "kubectl logs", "curl", "az "];
    let commands = report.commands().into_iter();
    let commands: Vec<_> = commands
        .filter(|command| !reads.iter().any(|read| command.starts_with(read)))
        .collect();
    for mut command in commands {
        for (placeholder, value) in placeholders {
            let value = value.replace("OWN_CLIENT", installation.env.team_a.client_id);
            command = command.replace(placeholder, &value);
        }
        let output = installation.try_shell(&command).await;
        println!("  {row}: {command}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.success(),
            "{row}: {command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Changes Azure by what the arguments of a command mean.
fn run_az(world: &mut Value, client_id: &str, command: &str) {
    let words: Vec<_> = command.split_whitespace().collect();
    let value = |flag: &str| {
        let at = words
            .iter()
            .position(|word| *word == flag)
            .unwrap_or_else(|| panic!("{flag} is not in {command}"));
        words[at + 1]
    };
    match words[1..4] {
        ["identity", "federated-credential", verb @ ("create" | "update")] => {
            let applications = world["tenants"][0]["applications"].as_array_mut().unwrap();
            let application = applications
                .iter_mut()
                .find(|application| application["clientId"] == client_id);
            let credential = json!({
                "issuer": value("--issuer"), "subject": value("--subject"), "audience": value("--audiences"),
            });
            let credentials = application.unwrap()["federatedCredentials"]
                .as_array_mut()
                .unwrap();
            if verb == "update" {
                // The person inserts the name of the credential that does not fit.
                assert!(credentials.pop().is_some(), "{command}: there is no credential");
            }
            credentials.push(credential);
        }
        ["role", "assignment", "create"] => {
            assert_eq!(value("--role"), "AcrPull");
            assert!(command.contains(&format!(
                "az acr show --name {}",
                REGISTRY.split('.').next().unwrap()
            )));
            let right =
                json!({"clientId": value("--assignee"), "repositories": ["team-a/app"], "actions": ["pull"]});
            world["registries"][0]["rights"]
                .as_array_mut()
                .unwrap()
                .push(right);
        }
        _ => panic!("{command} is not known"),
    }
}

/// A new Pod pulls the image of team A.
pub async fn assert_pulls(installation: &Installation, row: &str) {
    let env = &installation.env;
    let namespace = &env.team_a.namespace;
    let pod = namespace.retry_create_pod(&unnamed_pod("contoso")).await;
    let names = pull_secret_names(&pod);
    eventually(&format!("{row}: a Pod pulls"), async || {
        for name in &names {
            if namespace.secrets().get_opt(name).await.unwrap().is_none()
                || env.pull_status(namespace, name, "team-a/app").await != 200
            {
                return None;
            }
        }
        (!names.is_empty()).then_some(())
    })
    .await;
}
