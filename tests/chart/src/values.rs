//! Values that the chart accepts, and values that it refuses.

use crate::helm::set;

/// The text of a certificate. Its content does not matter.
pub const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";

/// Valid values. Each row is given to `--set`.
pub const VALID: &[&[&str]] = &[
    &["replicas=2"],
    &["certificates.mode=cert-manager"],
    &[
        "certificates.mode=cert-manager",
        "certificates.certManager.issuerRef.name=mine",
        "certificates.certManager.issuerRef.kind=ClusterIssuer",
    ],
    &[
        "certificates.selfManaged.secretName=other",
        "certificates.selfManaged.lifetime=720h",
    ],
    &[
        "fullnameOverride=other",
        "commonLabels.team=platform",
        "commonAnnotations.example\\.com/owner=platform",
    ],
    &[
        "certificates.mode=cert-manager",
        "commonLabels.team=platform",
        "commonAnnotations.example\\.com/owner=platform",
    ],
    &["webhook.configurationName=zz-acr-pull-webhook"],
    &[
        "rbac.aggregateToView=false",
        "rbac.aggregateToEdit=false",
        "rbac.aggregateToAdmin=false",
    ],
    &["rbac.aggregateToView=false", "rbac.aggregateToEdit=false"],
    &["policies.enabled=false"],
    &["crds.acrPullSecrets=false"],
    &["crds.generators=true", "crds.keep=false"],
    &["crds.generators=false"],
    &["podDisruptionBudget.enabled=false", "replicas=1"],
    &["podDisruptionBudget.maxUnavailable=50%", "replicas=4"],
    &[
        "networkPolicy.enabled=true",
        "azure.managedIdentityNamespaces={team-a}",
        "networkPolicy.adminFrom[0].namespaceSelector.matchLabels.a=b",
    ],
    &[
        "networkPolicy.enabled=true",
        "networkPolicy.webhookFrom[0].ipBlock.cidr=10.0.0.0/28",
    ],
    &[
        "networkPolicy.enabled=true",
        "networkPolicy.extraEgress[0].ports[0].port=3128",
    ],
    &[
        "serviceMonitor.enabled=true",
        "serviceMonitor.labels.release=prometheus",
        "serviceMonitor.metricRelabelings[0].action=labeldrop",
    ],
    &[
        "podMonitor.enabled=true",
        "podMonitor.apiVersion=azmonitoring.coreos.com/v1",
        "prometheusRule.enabled=true",
        "prometheusRule.labels.release=prometheus",
    ],
    &[
        "grafanaDashboard.enabled=true",
        "grafanaDashboard.namespace=monitoring",
        "grafanaDashboard.annotations.grafana_folder=Registries",
    ],
    &[
        "serviceAccount.create=false",
        "serviceAccount.name=other",
        "webhook.annotations.a=b",
        "crds.annotations.a=b",
        "deploymentAnnotations.a=b",
        "revisionHistoryLimit=0",
    ],
    &[
        "serviceAccount.name=other",
        "serviceAccount.labels.a=b",
        "extraArgs={--log-level=debug}",
        "extraVolumes[0].name=more",
        "extraVolumes[0].emptyDir.medium=Memory",
        "extraVolumeMounts[0].name=more",
        "extraVolumeMounts[0].mountPath=/more",
        "extraObjects[0].apiVersion=v1",
        "extraObjects[0].kind=ConfigMap",
        "extraObjects[0].metadata.name=\\{{ .Release.Name }}-more",
    ],
    &[
        "webhook.failurePolicy=Ignore",
        "webhook.timeoutSeconds=30",
        "webhook.excludedNamespaces={a,b}",
        "webhook.onUpstreamFailure=deny",
    ],
    &["pullSecrets.maxPerNamespace=100"],
    &["pullSecrets.labels.team=a", "pullSecrets.annotations.team=a"],
    &[
        "webhook.maxConnections=10",
        "webhook.shutdownDelay=0",
        "pullSecrets.issueConcurrency=8",
    ],
    &[
        "pullSecrets.unusedGrace=1h30m",
        "pullSecrets.unusedNotice=3m",
        "pullSecrets.renewalConcurrency=1",
        "pullSecrets.renewalRate=1",
    ],
    &[
        "leaderElection.leaseDuration=30s",
        "leaderElection.renewDeadline=20s",
        "leaderElection.retryPeriod=500ms",
        "leaderElection.namespace=default",
    ],
    &["log.level=debug", "log.format=text"],
    &[
        "azure.tenantId=contoso.onmicrosoft.com",
        "azure.registrySuffixes={azurecr.io,azurecr.us}",
        "azure.tokenAudiences={api://AzureADTokenExchange,api://other}",
    ],
    &[
        "azure.authorityHosts={AzureStackCloud=login.example.com}",
        "azure.acrAudiences={ChinaCloud=https://example.cn}",
        "azure.managedIdentityNamespaces={*}",
    ],
    &[
        "extraCa.configMap=ours",
        "extraCa.key=roots.pem",
        "webhook.clientCa.configMap=theirs",
        "webhook.clientCa.names[0]=apiserver",
    ],
    &[
        "proxy.https=http://proxy.example.com:3128",
        "proxy.noProxy={.azurecr.us,10.0.0.0/8}",
    ],
    &[
        "image.repository=contoso.azurecr.io/platform/acr-pull-webhook",
        "image.tag=v1",
        "image.pullPolicy=Always",
        "imagePullSecrets[0].name=platform",
    ],
    &["image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"],
    &[
        "serviceAccount.annotations.azure\\.workload\\.identity/client-id=x",
        "podLabels.team=platform",
        "podAnnotations.a=b",
    ],
    &[
        "nodeSelector.a=b",
        "tolerations[0].operator=Exists",
        "hostAliases[0].ip=10.0.0.1",
        "hostAliases[0].hostnames={a}",
        "extraEnv[0].name=A",
        "extraEnv[0].value=b",
    ],
    &[
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.\
            nodeSelectorTerms[0].matchFields[0].key=metadata.name",
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.\
            nodeSelectorTerms[0].matchFields[0].operator=In",
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.\
            nodeSelectorTerms[0].matchFields[0].values={a}",
    ],
    &[
        "topologySpreadConstraints[0].maxSkew=2",
        "topologySpreadConstraints[0].topologyKey=zone",
        "topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule",
        "priorityClassName=",
    ],
    &[
        "priorityClassName=system-node-critical",
        "resourceQuota.enabled=false",
    ],
    &["hostNetwork=true", "listen.port=10270", "admin.port=10271"],
    &["dnsPolicy=None", "dnsConfig.nameservers[0]=10.0.0.1"],
    &["networkPolicy.enabled=true", "networkPolicy.dnsPorts={53,5353}"],
    &[
        "namespaces={default,kube-public}",
        "certificates.selfManaged.lifetime=1h",
    ],
    &[
        "listen.address=0.0.0.0",
        "listen.port=9443",
        "admin.port=9090",
        "test.namespace=other",
    ],
];

/// An invalid value, and a part of the message: the path of the value.
pub const INVALID: &[(&str, &str)] = &[
    ("replicas=two", "/replicas"),
    (
        "podDisruptionBudget.maxUnavailable=0",
        "/podDisruptionBudget/maxUnavailable",
    ),
    (
        "podDisruptionBudget.maxUnavailable=0%",
        "/podDisruptionBudget/maxUnavailable",
    ),
    ("podDisruptionBudget.minAvailable=1", "'minAvailable' not allowed"),
    ("webhook.configurationName=ZZ", "/webhook/configurationName"),
    ("rbac.aggregateToView=yes", "/rbac/aggregateToView"),
    ("resourceQuota.enabled=yes", "/resourceQuota/enabled"),
    ("hostNetwork=yes", "/hostNetwork"),
    ("dnsPolicy=Cluster", "/dnsPolicy"),
    ("networkPolicy.dnsPorts={0}", "/networkPolicy/dnsPorts/0"),
    ("commonAnnotations.a=1", "/commonAnnotations/a"),
    ("certificates.mode=none", "/certificates/mode"),
    ("certificates.mode=provided", "/certificates/provided/caBundle"),
    ("networkPolicy.webhookFrom=x", "/networkPolicy/webhookFrom"),
    ("networkPolicy.egressTo=x", "/networkPolicy/egressTo"),
    ("webhook.clientCa.names[0]=apiserver", "webhook.clientCa.names"),
    (
        "certificates.selfManaged.lifetime=90d",
        "/certificates/selfManaged/lifetime",
    ),
    ("azure.tenantID=x", "'tenantID' not allowed"),
    ("azure.registrySuffixes=azurecr.io", "/azure/registrySuffixes"),
    ("azure.tokenAudiences=null", "missing property 'tokenAudiences'"),
    ("azure.tokenAudiences={a'b}", "/azure/tokenAudiences/0"),
    (
        "azure.managedIdentityNamespaces={Team}",
        "/azure/managedIdentityNamespaces/0",
    ),
    ("namespaces={Team}", "/namespaces/0"),
    ("webhook.timeoutSeconds=60", "/webhook/timeoutSeconds"),
    (
        "webhook.excludedNamespaces={a'b}",
        "/webhook/excludedNamespaces/0",
    ),
    ("webhook.failurePolicy=fail", "/webhook/failurePolicy"),
    ("webhook.onUpstreamFailure=refuse", "/webhook/onUpstreamFailure"),
    ("webhook.maxConnections=0", "/webhook/maxConnections"),
    (
        "pullSecrets.labels.app\\.kubernetes\\.io/x=a",
        "/pullSecrets/labels",
    ),
    ("pullSecrets.labels.team=a/b", "/pullSecrets/labels/team"),
    ("pullSecrets.annotations.k8s\\.io/x=a", "/pullSecrets/annotations"),
    (
        "pullSecrets.annotations.team=a\\,b",
        "/pullSecrets/annotations/team",
    ),
    ("pullSecrets.unusedGrace=soon", "/pullSecrets/unusedGrace"),
    ("log.format=xml", "/log/format"),
    ("crds.generators=maybe", "/crds/generators"),
    ("extraCa.pem=x", "/extraCa/pem"),
    ("image.digest=abc", "/image/digest"),
    ("listen.port=70000", "/listen/port"),
    ("proxy.https=proxy:3128", "/proxy/https"),
    ("policies.enabled=yes", "/policies/enabled"),
    ("serviceAccount.create=false", "/serviceAccount/name"),
    ("revisionHistoryLimit=-1", "/revisionHistoryLimit"),
    ("extraArgs={serve}", "/extraArgs/0"),
    ("extraVolumeMounts[0].name=more", "missing property 'mountPath'"),
    ("serviceMonitor.apiVersion=v1", "/serviceMonitor/apiVersion"),
    ("podMonitor.interval=often", "/podMonitor/interval"),
];

/// Flags for certificates of the user, in this Secret.
pub fn provided(secret: &str) -> Vec<String> {
    let name = format!("certificates.provided.secretName={secret}");
    let mut flags = set(["certificates.mode=provided", &name]);
    flags.extend(text("certificates.provided.caBundle", PEM));
    flags
}

/// Flags that set a value to a text of several lines.
pub fn text(path: &str, text: &str) -> Vec<String> {
    vec!["--set-string".to_owned(), format!("{path}={text}")]
}

/// Flags for a certificate of the user and the authorities that the webhook trusts.
pub fn every_authority() -> Vec<String> {
    let mut flags = provided("mine");
    flags.extend(text("extraCa.pem", PEM));
    flags.extend(text("webhook.clientCa.pem", PEM));
    flags
}
