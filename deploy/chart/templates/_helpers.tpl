{{/* A cluster has only one acr-pull-webhook, so the name does not depend on the release name. */}}
{{- define "acr-pull-webhook.name" -}}
{{ .Values.fullnameOverride | default .Chart.Name }}
{{- end }}

{{/* API servers call webhooks in the order of these names, so this one can differ: docs/ordering.md. */}}
{{- define "acr-pull-webhook.registration" -}}
{{ .Values.webhook.configurationName | default (include "acr-pull-webhook.name" .) }}
{{- end }}

{{- define "acr-pull-webhook.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "acr-pull-webhook.name" .) }}
{{- end }}

{{- define "acr-pull-webhook.account" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "acr-pull-webhook.serviceAccount" . }}
{{- end }}

{{/* With a digest, a tag only tells people the version. */}}
{{- define "acr-pull-webhook.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ with .tag | default (ternary $.Chart.AppVersion "" (empty .digest)) }}:{{ . }}{{ end }}{{ with .digest }}@{{ . }}{{ end }}
{{- end }}
{{- end }}

{{/* The namespace of the Pod that `helm test` asks for: one that the webhook serves. */}}
{{- define "acr-pull-webhook.testNamespace" -}}
{{ .Values.test.namespace | default (first (append .Values.namespaces "default")) }}
{{- end }}

{{- define "acr-pull-webhook.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
{{- end }}

{{- define "acr-pull-webhook.labels" -}}
{{ include "acr-pull-webhook.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Without the version of the chart: a new chart with the same Pods does not roll the Deployment. */}}
{{- define "acr-pull-webhook.podLabels" -}}
{{- omit (include "acr-pull-webhook.labels" . | fromYaml) "helm.sh/chart" | toYaml }}
{{- end }}

{{/*
Name, namespace, labels and annotations of an object. `context` is the chart's context; optional are `name` or a `suffix`
of the common name, `namespace` unless the object is cluster-scoped, and the object's own `labels` and `annotations`.
*/}}
{{- define "acr-pull-webhook.metadata" -}}
{{- $values := .context.Values -}}
name: {{ .name | default (printf "%s%s" (include "acr-pull-webhook.name" .context) (.suffix | default "")) }}
{{- with .namespace }}
namespace: {{ . }}
{{- end }}
labels:
  {{- merge (dict) (.labels | default dict) (include "acr-pull-webhook.labels" .context | fromYaml) $values.commonLabels | toYaml | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) $values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "acr-pull-webhook.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "acr-pull-webhook.serviceAccount" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}

{{/*
The priority classes of Kubernetes that some API servers, such as GKE's, allow only in namespaces with a ResourceQuota for
them; empty for other classes.
*/}}
{{- define "acr-pull-webhook.limitedPriorityClass" -}}
{{- if has .Values.priorityClassName (list "system-cluster-critical" "system-node-critical") }}{{ .Values.priorityClassName }}{{ end }}
{{- end }}

{{/* A list in JSON, which both YAML and CEL can parse. */}}
{{- define "acr-pull-webhook.excludedNamespaces" -}}
{{ concat (list "kube-system" .Release.Namespace) .Values.webhook.excludedNamespaces | uniq | toJson }}
{{- end }}

{{- define "acr-pull-webhook.certificatesSecret" -}}
{{ .Values.certificates.selfManaged.secretName | default (printf "%s-certificates" (include "acr-pull-webhook.name" .)) }}
{{- end }}

{{/* The Secret with the files of a certificate; empty if the webhook issues its own. */}}
{{- define "acr-pull-webhook.tlsSecret" -}}
{{- if eq .Values.certificates.mode "provided" -}}
{{ .Values.certificates.provided.secretName }}
{{- else if eq .Values.certificates.mode "cert-manager" -}}
{{ include "acr-pull-webhook.name" . }}-tls
{{- end }}
{{- end }}

{{/* The program's options as environment variables; for an empty value the program uses its default. */}}
{{- define "acr-pull-webhook.settings" -}}
{{- $name := include "acr-pull-webhook.name" . }}
{{- $options := dict }}
{{- with .Values }}
{{- $_ := set $options "REGISTRY_SUFFIXES" (join "," .azure.registrySuffixes) }}
{{- $_ := set $options "AUTHORITY_HOST" (join "," .azure.authorityHosts) }}
{{- $_ := set $options "ACR_AUDIENCE" (join "," .azure.acrAudiences) }}
{{- $_ := set $options "MANAGED_IDENTITY_NAMESPACES" (join "," .azure.managedIdentityNamespaces) }}
{{- if ne (join "," .azure.tokenAudiences) "api://AzureADTokenExchange" }}
{{- $_ := set $options "TOKEN_AUDIENCES" (join "," .azure.tokenAudiences) }}
{{- end }}
{{- $_ := set $options "NAMESPACES" (join "," .namespaces) }}
{{- $_ := set $options "EXCLUDED_NAMESPACES" (join "," .webhook.excludedNamespaces) }}
{{- $_ := set $options "ON_UPSTREAM_FAILURE" .webhook.onUpstreamFailure }}
{{- $_ := set $options "MAX_CONNECTIONS" .webhook.maxConnections }}
{{- $_ := set $options "SHUTDOWN_DELAY" .webhook.shutdownDelay }}
{{- $_ := set $options "ISSUE_CONCURRENCY" .pullSecrets.issueConcurrency }}
{{- $_ := set $options "MAX_PULL_SECRETS_PER_NAMESPACE" .pullSecrets.maxPerNamespace }}
{{- range $option, $entries := dict "PULL_SECRET_LABELS" .pullSecrets.labels "PULL_SECRET_ANNOTATIONS" .pullSecrets.annotations }}
{{- $pairs := list }}
{{- range $key, $value := $entries }}
{{- $pairs = append $pairs (printf "%s=%s" $key $value) }}
{{- end }}
{{- $_ := set $options $option (join "," $pairs) }}
{{- end }}
{{- $_ := set $options "UNUSED_GRACE" .pullSecrets.unusedGrace }}
{{- $_ := set $options "UNUSED_NOTICE" .pullSecrets.unusedNotice }}
{{- $_ := set $options "RENEWAL_CONCURRENCY" .pullSecrets.renewalConcurrency }}
{{- $_ := set $options "RENEWAL_RATE" .pullSecrets.renewalRate }}
{{- $_ := set $options "LEADER_ELECTION_LEASE_DURATION" .leaderElection.leaseDuration }}
{{- $_ := set $options "LEADER_ELECTION_RENEW_DEADLINE" .leaderElection.renewDeadline }}
{{- $_ := set $options "LEADER_ELECTION_RETRY_PERIOD" .leaderElection.retryPeriod }}
{{- $_ := set $options "LEADER_ELECTION_NAMESPACE" .leaderElection.namespace }}
{{- $_ := set $options "LOG_LEVEL" .log.level }}
{{- $_ := set $options "LOG_FORMAT" .log.format }}
{{- if or .extraCa.pem .extraCa.configMap }}
{{- $_ := set $options "EXTRA_CA_FILE" (printf "/etc/acr-pull-webhook/extra-ca/%s" .extraCa.key) }}
{{- end }}
{{- if or .webhook.clientCa.pem .webhook.clientCa.configMap }}
{{- $_ := set $options "CLIENT_CA_FILE" (printf "/etc/acr-pull-webhook/client-ca/%s" .webhook.clientCa.key) }}
{{- $_ := set $options "CLIENT_NAMES" (join "," .webhook.clientCa.names) }}
{{- else if .webhook.clientCa.names }}
{{- fail "webhook.clientCa.names: requires a CA; set webhook.clientCa.pem or webhook.clientCa.configMap" }}
{{- end }}
{{- $secret := include "acr-pull-webhook.certificatesSecret" $ }}
{{- if eq $secret (include "acr-pull-webhook.tlsSecret" $) }}
{{- fail (printf "certificates.provided.secretName: the webhook stores its secret path in Secret %s and would overwrite your certificate; use another name" $secret) }}
{{- end }}
{{- if ne $secret "acr-pull-webhook-certificates" }}
{{- $_ := set $options "TLS_SECRET" $secret }}
{{- end }}
{{- $registration := include "acr-pull-webhook.registration" $ }}
{{- if ne $registration "acr-pull-webhook" }}
{{- $_ := set $options "WEBHOOK_CONFIGURATION" $registration }}
{{- end }}
{{- if eq .certificates.mode "self-managed" }}
{{- $_ := set $options "CERTIFICATE_LIFETIME" .certificates.selfManaged.lifetime }}
{{- if ne $name "acr-pull-webhook" }}
{{- $_ := set $options "TLS_NAMES" (printf "%s.%s.svc" $name $.Release.Namespace) }}
{{- end }}
{{- end }}
{{- $settings := dict "AZURE_TENANT_ID" .azure.tenantId "HTTPS_PROXY" .proxy.https "NO_PROXY" (join "," .proxy.noProxy) }}
{{- range $key, $value := $options }}
{{- $_ := set $settings (printf "ACR_PULL_WEBHOOK_%s" $key) $value }}
{{- end }}
{{- range $key, $value := $settings }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
{{- /* Helm reads numbers in a file as floats, which would be printed as 2e+06. */}}
{{ $key }}: {{ kindIs "float64" $value | ternary (int64 $value) $value | toString | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The admin port as an endpoint of a ServiceMonitor or PodMonitor. */}}
{{- define "acr-pull-webhook.endpoint" -}}
- port: admin
  interval: {{ .interval }}
  {{- with .metricRelabelings }}
  metricRelabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
