//! The flags of the running webhook, from the arguments and the environment of its Deployment. Flags that the caller
//! gives take precedence.

use super::{
    api::{ApiServer, Unread, items, text},
    reason::Reason,
    report::Finding,
    target::Target,
};
use crate::cli::ServeArgs;
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, FromArgMatches};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// The flags of the webhook, and the files that they name.
#[derive(Debug)]
pub struct Settings {
    /// The flags.
    pub serve: ServeArgs,
    /// The certificate authorities of `--extra-ca-file`, in PEM.
    pub extra_ca: Option<Vec<u8>>,
}

/// The values of each flag, by its name without dashes. A later source of a flag replaces all values of an earlier one.
#[derive(Default)]
struct Flags(BTreeMap<String, Vec<String>>);

impl Flags {
    /// Adds the flags of an argument list.
    fn add(&mut self, arguments: &[String]) -> Result<(), String> {
        let mut added = BTreeMap::<String, Vec<String>>::new();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let flag = argument
                .strip_prefix("--")
                .ok_or_else(|| format!("{argument:?} is not a flag"))?;
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => (
                    flag,
                    arguments
                        .next()
                        .cloned()
                        .ok_or_else(|| format!("--{flag} has no value"))?,
                ),
            };
            added.entry(name.to_owned()).or_default().push(value);
        }
        self.0.extend(added);
        Ok(())
    }

    /// The values as flags of `serve`. The environment of this process does not matter.
    fn parse(self) -> Result<ServeArgs, String> {
        let command = ServeArgs::augment_args(clap::Command::new("serve").no_binary_name(true));
        let command = command.mut_args(|argument| argument.env(None::<&'static str>));
        let each = |(name, values): (String, Vec<String>)| {
            values.into_iter().map(move |value| format!("--{name}={value}"))
        };
        let matches = command.try_get_matches_from(self.0.into_iter().flat_map(each));
        let parsed = matches.and_then(|matches| ServeArgs::from_arg_matches(&matches));
        parsed.map_err(|error| error.to_string())
    }
}

/// The name of the flag that an environment variable of the webhook sets.
fn flag_of(variable: &str) -> Option<String> {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let mut arguments = command.get_arguments();
    let found = arguments.find(|argument| argument.get_env().is_some_and(|name| name == variable));
    found?.get_long().map(str::to_owned)
}

/// The container of the Deployment that runs `serve`.
pub fn container(deployment: &Value) -> Option<&Value> {
    let mut containers = items(deployment, "/spec/template/spec/containers").iter();
    containers.find(|container| {
        items(container, "/args")
            .first()
            .is_some_and(|first| first == "serve")
    })
}

impl Settings {
    /// The namespaces of `--namespaces`.
    pub fn served_namespaces(&self) -> impl Iterator<Item = &str> {
        let names = self.serve.namespaces.iter().map(String::as_str);
        names.filter(|name| !name.is_empty())
    }

    /// Whether the webhook serves all namespaces.
    pub fn is_cluster_wide(&self) -> bool {
        self.served_namespaces().next().is_none()
    }

    /// The namespace and the name of the Secret of `--tls-secret`.
    pub fn tls_secret<'a>(&'a self, target: &'a Target) -> (&'a str, &'a str) {
        let (namespace, name) = self.serve.tls.secret();
        (namespace.unwrap_or(&target.namespace), name)
    }

    /// The namespace of the leader's Lease.
    pub fn lease_namespace<'a>(&'a self, target: &'a Target) -> &'a str {
        let configured = self.serve.leader_election.namespace.as_deref();
        configured
            .filter(|name| !name.is_empty())
            .unwrap_or(&target.namespace)
    }

    /// The settings of a webhook with these flags, whose files are on this machine.
    pub fn local(own: &[String]) -> Result<Self, String> {
        let mut flags = Flags::default();
        flags.add(own)?;
        let serve = flags.parse()?;
        let extra_ca = serve.extra_ca_file.as_deref().map(read_file).transpose()?;
        Ok(Self { serve, extra_ca })
    }

    /// The settings of the Deployment. The findings are about parts that could not be read.
    pub async fn of(
        api: &ApiServer,
        deployment: &Value,
        own: &[String],
    ) -> Result<(Self, Vec<Finding>), Finding> {
        let mut findings = Vec::new();
        let invalid = |why: String| {
            let name = text(deployment, "/metadata/name");
            let why = why
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
            let message = format!("the flags of Deployment {name} cannot be used: {why}");
            let namespace = text(deployment, "/metadata/namespace");
            let undo = format!("kubectl rollout undo deployment --namespace {namespace} {name}");
            Finding::failed("settings", Reason::SettingsInvalid, message).command(undo)
        };
        let container = container(deployment)
            .ok_or_else(|| invalid("no container has `serve` as its first argument".to_owned()))?;
        let mut flags = Flags::default();
        let environment = environment(api, deployment, container, &mut findings).await;
        for (variable, value) in environment.iter().filter(|(_, value)| !value.is_empty()) {
            flags
                .0
                .extend(flag_of(variable).map(|flag| (flag, vec![value.clone()])));
        }
        let arguments: Vec<_> = items(container, "/args")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        flags
            .add(arguments.get(1..).unwrap_or_default())
            .map_err(invalid)?;
        let local = Self::local(own).map_err(|why| {
            Finding::failed(
                "settings",
                Reason::InputInvalid,
                format!("the flags after -- cannot be used: {why}"),
            )
        })?;
        flags.add(own).map_err(invalid)?;
        let serve = flags.parse().map_err(invalid)?;
        let mut extra_ca = local.extra_ca;
        if extra_ca.is_none()
            && let Some(file) = &serve.extra_ca_file
        {
            let read = mounted_file(api, deployment, container, file).await;
            let what = format!("the file {} of --extra-ca-file", file.display());
            extra_ca = read
                .map_err(|unread| findings.push(unread.finding("settings", &what)))
                .ok();
        }
        Ok((Self { serve, extra_ca }, findings))
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The environment variables of the container. ConfigMaps are read; values from other sources do not set flags.
async fn environment(
    api: &ApiServer,
    deployment: &Value,
    container: &Value,
    findings: &mut Vec<Finding>,
) -> BTreeMap<String, String> {
    let namespace = text(deployment, "/metadata/namespace");
    let mut variables = BTreeMap::new();
    for source in items(container, "/envFrom") {
        let name = text(source, "/configMapRef/name");
        if name.is_empty() {
            continue;
        }
        let prefix = text(source, "/prefix");
        match api.get(&config_map(namespace, name)).await {
            Ok(found) => {
                for (key, value) in found["data"].as_object().into_iter().flatten() {
                    let value = value.as_str().unwrap_or_default();
                    variables.insert(format!("{prefix}{key}"), value.to_owned());
                }
            }
            Err(Unread::NotFound) if source["configMapRef"]["optional"] == true => {}
            Err(Unread::NotFound) => findings.push(Finding::failed(
                "settings",
                Reason::SettingsInvalid,
                format!(
                    "ConfigMap {namespace}/{name}, from which the Deployment takes its flags, does not exist"
                ),
            )),
            Err(unread) => {
                findings.push(unread.finding("settings", &format!("ConfigMap {namespace}/{name}")))
            }
        }
    }
    for variable in items(container, "/env") {
        if let (Some(name), Some(value)) = (variable["name"].as_str(), variable["value"].as_str()) {
            variables.insert(name.to_owned(), value.to_owned());
        }
    }
    variables
}

fn config_map(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{name}")
}

/// The object that a file in the container comes from, and the key in its data.
#[derive(Debug, PartialEq, Eq)]
pub enum MountedFile {
    /// A key of a ConfigMap.
    ConfigMap(String, String),
    /// A key of a Secret.
    Secret(String, String),
}

impl MountedFile {
    /// The source of the file at this path.
    pub fn of(deployment: &Value, container: &Value, path: &Path) -> Option<Self> {
        let mut mounts = items(container, "/volumeMounts").iter();
        let (volume, key) = mounts.find_map(|mount| {
            let below = path.strip_prefix(text(mount, "/mountPath")).ok()?;
            Some((text(mount, "/name"), below.to_str()?.to_owned()))
        })?;
        let mut volumes = items(deployment, "/spec/template/spec/volumes").iter();
        let volume = volumes.find(|found| found["name"] == volume)?;
        let named = |pointer| {
            Some(text(volume, pointer))
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
        };
        match (named("/configMap/name"), named("/secret/secretName")) {
            (Some(name), _) => Some(Self::ConfigMap(name, key)),
            (None, Some(name)) => Some(Self::Secret(name, key)),
            (None, None) => None,
        }
    }
}

/// The content of a file of the container, from the ConfigMap or Secret that is mounted there.
pub async fn mounted_file(
    api: &ApiServer,
    deployment: &Value,
    container: &Value,
    path: &Path,
) -> Result<Vec<u8>, Unread> {
    let namespace = text(deployment, "/metadata/namespace");
    match MountedFile::of(deployment, container, path).ok_or(Unread::NotFound)? {
        MountedFile::ConfigMap(name, key) => {
            let found = api.get(&config_map(namespace, &name)).await?;
            let value = found["data"][&key].as_str().ok_or(Unread::NotFound)?;
            Ok(value.as_bytes().to_vec())
        }
        MountedFile::Secret(name, key) => secret_value(api, namespace, &name, &key).await,
    }
}

/// One value of a Secret. The other values are dropped.
pub async fn secret_value(
    api: &ApiServer,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Vec<u8>, Unread> {
    let found = api
        .get(&format!("/api/v1/namespaces/{namespace}/secrets/{name}"))
        .await?;
    let value = found["data"][key]
        .as_str()
        .and_then(|text| STANDARD.decode(text).ok());
    value.ok_or(Unread::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(sources: &[&[&str]]) -> Result<ServeArgs, String> {
        let mut flags = Flags::default();
        for source in sources {
            let source: Vec<_> = source.iter().map(|flag| (*flag).to_owned()).collect();
            flags.add(&source)?;
        }
        flags.parse()
    }

    #[test]
    fn a_later_source_replaces_a_flag_of_an_earlier_one() {
        let deployed = [
            "--tenant-id",
            "a",
            "--token-audiences=one,two",
            "--listen-addr=[::]:8443",
        ];
        let args = parse(&[&deployed, &["--token-audiences=three"]]).unwrap();
        assert_eq!(args.tenant_id.as_deref(), Some("a"));
        assert_eq!(args.token_audiences, ["three"]);
        assert!(parse(&[&["serve"]]).unwrap_err().contains("not a flag"));
        assert!(
            parse(&[&["--no-such-flag=1"]])
                .unwrap_err()
                .contains("--no-such-flag")
        );
        assert!(
            parse(&[&["--registry-suffixes=io"]])
                .unwrap_err()
                .contains("domain suffix")
        );
    }

    #[test]
    fn each_environment_variable_of_serve_has_its_flag() {
        assert_eq!(flag_of("AZURE_TENANT_ID").as_deref(), Some("tenant-id"));
        assert_eq!(
            flag_of("ACR_PULL_WEBHOOK_TLS_SECRET").as_deref(),
            Some("tls-secret")
        );
        assert_eq!(flag_of("POD_NAME"), None);
    }

    #[test]
    fn a_file_is_traced_to_the_volume_that_is_mounted_above_it() {
        let container = json!({"volumeMounts": [
            {"name": "tls", "mountPath": "/etc/acr-pull-webhook/tls"},
            {"name": "ca", "mountPath": "/etc/acr-pull-webhook/extra-ca"}]});
        let deployment = json!({"spec": {"template": {"spec": {"volumes": [
            {"name": "tls", "secret": {"secretName": "cert"}}, {"name": "ca", "configMap": {"name": "bundle"}}]}}}});
        let of = |path: &str| MountedFile::of(&deployment, &container, Path::new(path));
        let names = ("cert".to_owned(), "tls.crt".to_owned());
        assert_eq!(
            of("/etc/acr-pull-webhook/tls/tls.crt"),
            Some(MountedFile::Secret(names.0, names.1))
        );
        let names = ("bundle".to_owned(), "ca.crt".to_owned());
        assert_eq!(
            of("/etc/acr-pull-webhook/extra-ca/ca.crt"),
            Some(MountedFile::ConfigMap(names.0, names.1))
        );
        assert_eq!(of("/etc/ssl/ca.crt"), None);
    }
}
