//! The object that is explained: a Pod, or a workload with a Pod template, in the cluster or in a file.

use crate::{
    check::{
        api::{ApiServer, Unread, items, name, text},
        reason::Reason,
        report::Finding,
    },
    names::{NamespaceName, ObjectName},
    untrusted::UntrustedText,
};
use serde_json::{Value, json};
use std::{io::Read, path::Path};

/// The longest file that is read.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// A Pod of a CronJob has three owners: a Job, the CronJob, and perhaps a custom resource.
const MAX_OWNERS: usize = 3;

/// A kind with Pods.
#[derive(Debug)]
pub struct Kind {
    /// The name of the kind.
    pub name: &'static str,
    group_version: &'static str,
    plural: &'static str,
    /// The JSON pointer to the Pod template; empty for a Pod.
    pub template: &'static str,
}

const KINDS: [Kind; 7] = [
    Kind {
        name: "Pod",
        group_version: "api/v1",
        plural: "pods",
        template: "",
    },
    Kind {
        name: "Deployment",
        group_version: "apis/apps/v1",
        plural: "deployments",
        template: "/spec/template",
    },
    Kind {
        name: "StatefulSet",
        group_version: "apis/apps/v1",
        plural: "statefulsets",
        template: "/spec/template",
    },
    Kind {
        name: "DaemonSet",
        group_version: "apis/apps/v1",
        plural: "daemonsets",
        template: "/spec/template",
    },
    Kind {
        name: "ReplicaSet",
        group_version: "apis/apps/v1",
        plural: "replicasets",
        template: "/spec/template",
    },
    Kind {
        name: "Job",
        group_version: "apis/batch/v1",
        plural: "jobs",
        template: "/spec/template",
    },
    Kind {
        name: "CronJob",
        group_version: "apis/batch/v1",
        plural: "cronjobs",
        template: "/spec/jobTemplate/spec/template",
    },
];

impl Kind {
    /// The kind by its name in a manifest.
    pub fn of(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// The kind by the name that kubectl accepts, in singular or plural.
    fn by_argument(argument: &str) -> Option<&'static Self> {
        let argument = argument.to_ascii_lowercase();
        KINDS
            .iter()
            .find(|kind| kind.plural == argument || kind.name.to_ascii_lowercase() == argument)
    }

    fn path(&self, namespace: &str, name: &str) -> String {
        format!(
            "/{}/namespaces/{namespace}/{}/{name}",
            self.group_version, self.plural
        )
    }

    /// The name for kubectl.
    pub fn singular(&self) -> String {
        self.name.to_ascii_lowercase()
    }
}

/// An object to explain.
#[derive(Debug)]
pub struct Subject {
    /// The kind.
    pub kind: &'static Kind,
    /// The namespace.
    pub namespace: NamespaceName,
    /// The object.
    pub object: Value,
    /// Whether the object was read from the cluster.
    pub exists: bool,
    /// The workloads that own the object, the nearest one first.
    pub owners: Vec<(&'static Kind, Value)>,
}

impl Subject {
    /// The object of the cluster that `argument` names, as in `pod/app` or `app`.
    pub async fn fetch(api: &ApiServer, argument: &str, namespace: &NamespaceName) -> Result<Self, Finding> {
        let (kind, object) = argument.split_once('/').unwrap_or(("pod", argument));
        let invalid = |why: String| Finding::failed("object", Reason::InputInvalid, why);
        let shown = UntrustedText::quoted(argument);
        let kind = Kind::by_argument(kind).ok_or_else(|| {
            let known: Vec<_> = KINDS.iter().map(Kind::singular).collect();
            invalid(format!(
                "{shown} is not of a kind that can be explained: {}",
                known.join(", ")
            ))
        })?;
        let object = ObjectName::new(object)
            .ok_or_else(|| invalid(format!("{shown} does not contain a valid object name")))?;
        let found = api.get(&kind.path(namespace, &object)).await;
        let what = format!("{} {namespace}/{object}", kind.name);
        let object = found.map_err(|unread| match unread {
            Unread::NotFound => {
                let message = format!("{what} does not exist; correct the name or --namespace");
                Finding::failed("object", Reason::ObjectNotFound, message)
            }
            unread => unread.finding("object", &what),
        })?;
        let owners = owners(api, namespace, &object).await;
        Ok(Self {
            kind,
            namespace: namespace.clone(),
            object,
            exists: true,
            owners,
        })
    }

    /// All objects of a file that have Pods. `-` is the standard input.
    pub fn load(file: &Path, namespace: &NamespaceName) -> Result<Vec<Self>, Finding> {
        let shown = file.display();
        let invalid =
            |why: String| Finding::failed("object", Reason::InputInvalid, format!("{shown}: {why}"));
        let mut yaml = String::new();
        let read = if file == Path::new("-") {
            std::io::stdin().take(MAX_FILE_BYTES).read_to_string(&mut yaml)
        } else {
            std::fs::File::open(file).and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut yaml))
        };
        read.map_err(|error| invalid(error.to_string()))?;
        Self::parse(&yaml, namespace).map_err(invalid)
    }

    fn parse(yaml: &str, namespace: &NamespaceName) -> Result<Vec<Self>, String> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).map_err(|error| error.to_string())?;
        let each = documents
            .into_iter()
            .flat_map(|document| match items(&document, "/items") {
                [] => vec![document],
                listed => listed.to_vec(),
            });
        let subjects: Vec<_> = each
            .filter_map(|object| {
                let kind = Kind::of(text(&object, "/kind"))?;
                let own = NamespaceName::new(text(&object, "/metadata/namespace"));
                let namespace = own.unwrap_or_else(|| namespace.clone());
                Some(Self {
                    kind,
                    namespace,
                    object,
                    exists: false,
                    owners: Vec::new(),
                })
            })
            .collect();
        if subjects.is_empty() {
            return Err("it contains neither a Pod nor a workload with a Pod template".to_owned());
        }
        Ok(subjects)
    }

    /// The name of the object, or the prefix of the name that will be generated.
    pub fn name(&self) -> &str {
        match name(&self.object) {
            "" => text(&self.object, "/metadata/generateName"),
            name => name,
        }
    }

    /// The Pod, or the Pod that the workload creates.
    pub fn pod(&self) -> Value {
        let template = self
            .object
            .pointer(self.kind.template)
            .cloned()
            .unwrap_or_default();
        if self.kind.template.is_empty() {
            return template;
        }
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "generateName": format!("{}-", self.name()),
                "annotations": template["metadata"]["annotations"], "labels": template["metadata"]["labels"],
            },
            "spec": template["spec"],
        })
    }

    /// The workload that a person edits: the last owner, or the object itself.
    pub fn workload(&self) -> (&'static Kind, &str) {
        match self.owners.last() {
            Some((kind, owner)) => (kind, name(owner)),
            None => (self.kind, name(&self.object)),
        }
    }

    /// Each object above the Pod template: the workload itself, and the owners.
    pub fn above_template(&self) -> impl Iterator<Item = (&'static Kind, &Value)> {
        let own = (!self.kind.template.is_empty()).then_some((self.kind, &self.object));
        own.into_iter()
            .chain(self.owners.iter().map(|(kind, owner)| (*kind, owner)))
    }
}

/// The workloads that own an object, as far as the caller may read them.
async fn owners(api: &ApiServer, namespace: &str, object: &Value) -> Vec<(&'static Kind, Value)> {
    let mut owners = Vec::new();
    let mut current = object.clone();
    while owners.len() < MAX_OWNERS {
        let mut references = items(&current, "/metadata/ownerReferences").iter();
        let Some(reference) = references.find(|reference| reference["controller"] == true) else {
            break;
        };
        let Some(kind) = Kind::of(text(reference, "/kind")) else {
            break;
        };
        let Ok(owner) = api.get(&kind.path(namespace, text(reference, "/name"))).await else {
            break;
        };
        current = owner.clone();
        owners.push((kind, owner));
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "
apiVersion: v1
kind: Service
metadata: {name: app}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: team-b}
spec: {template: {metadata: {annotations: {a: b}}, spec: {serviceAccountName: app}}}
---
apiVersion: v1
kind: List
items:
- {apiVersion: batch/v1, kind: CronJob, metadata: {name: job}, spec: {jobTemplate: {spec: {template: {spec: {}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {generateName: pod-}
";

    #[test]
    fn every_pod_and_pod_template_of_a_file_is_found() {
        let namespace = NamespaceName::new("team-a").unwrap();
        let subjects = Subject::parse(YAML, &namespace).unwrap();
        let found: Vec<_> = subjects
            .iter()
            .map(|s| (s.kind.name, s.namespace.as_str(), s.name()))
            .collect();
        assert_eq!(
            found,
            [
                ("Deployment", "team-b", "app"),
                ("CronJob", "team-a", "job"),
                ("Pod", "team-a", "pod-")
            ]
        );
        let pod = subjects[0].pod();
        assert_eq!(pod["metadata"]["annotations"]["a"], "b");
        assert_eq!(pod["spec"]["serviceAccountName"], "app");
        for other in ["kind: Service", "", "a: [b"] {
            assert!(Subject::parse(other, &namespace).is_err(), "{other}");
        }
    }
}
