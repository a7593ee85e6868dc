{{/* One cluster has one acr-pull-webhook: the name does not depend on the release's. */}}
{{- define "acr-pull-webhook.name" -}}
{{ .Values.fullnameOverride | default .Chart.Name }}
{{- end }}

{{- define "acr-pull-webhook.account" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "acr-pull-webhook.name" . }}
{{- end }}

{{- define "acr-pull-webhook.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
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
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The name and labels of an object of ours; its namespace too, unless it belongs to the cluster. */}}
{{- define "acr-pull-webhook.clusterMetadata" -}}
name: {{ include "acr-pull-webhook.name" . }}
labels:
  {{- include "acr-pull-webhook.labels" . | nindent 2 }}
{{- end }}
{{- define "acr-pull-webhook.metadata" -}}
{{ include "acr-pull-webhook.clusterMetadata" . }}
namespace: {{ .Release.Namespace }}
{{- end }}

{{- define "acr-pull-webhook.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "acr-pull-webhook.name" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}

{{/* A list that YAML and CEL read alike. */}}
{{- define "acr-pull-webhook.excludedNamespaces" -}}
{{ concat (list "kube-system" .Release.Namespace) .Values.webhook.excludedNamespaces | uniq | toJson }}
{{- end }}

{{- define "acr-pull-webhook.certificatesSecret" -}}
{{ .Values.certificates.selfManaged.secretName | default (printf "%s-certificates" (include "acr-pull-webhook.name" .)) }}
{{- end }}

{{/* The Secret with files of a certificate; none where the webhook makes its own. */}}
{{- define "acr-pull-webhook.tlsSecret" -}}
{{- if eq .Values.certificates.mode "provided" -}}
{{ .Values.certificates.provided.secretName }}
{{- else if eq .Values.certificates.mode "cert-manager" -}}
{{ include "acr-pull-webhook.name" . }}-tls
{{- end }}
{{- end }}

{{/* The program's options as variables; what is empty is left to the program. */}}
{{- define "acr-pull-webhook.settings" -}}
{{- $name := include "acr-pull-webhook.name" . }}
{{- $ours := dict }}
{{- with .Values }}
{{- $_ := set $ours "REGISTRY_SUFFIXES" (join "," .azure.registrySuffixes) }}
{{- $_ := set $ours "AUTHORITY_HOST" (join "," .azure.authorityHosts) }}
{{- $_ := set $ours "ACR_AUDIENCE" (join "," .azure.acrAudiences) }}
{{- $_ := set $ours "MANAGED_IDENTITY_NAMESPACES" (join "," .azure.managedIdentityNamespaces) }}
{{- if ne (join "," .azure.tokenAudiences) "api://AzureADTokenExchange" }}
{{- $_ := set $ours "TOKEN_AUDIENCES" (join "," .azure.tokenAudiences) }}
{{- end }}
{{- $_ := set $ours "NAMESPACES" (join "," .namespaces) }}
{{- $_ := set $ours "EXCLUDED_NAMESPACES" (join "," .webhook.excludedNamespaces) }}
{{- $_ := set $ours "ON_UPSTREAM_FAILURE" .webhook.onUpstreamFailure }}
{{- $_ := set $ours "MAX_CONNECTIONS" .webhook.maxConnections }}
{{- $_ := set $ours "SHUTDOWN_DELAY" .webhook.shutdownDelay }}
{{- $_ := set $ours "ISSUE_CONCURRENCY" .pullSecrets.issueConcurrency }}
{{- $_ := set $ours "MAX_PULL_SECRETS_PER_NAMESPACE" .pullSecrets.maxPerNamespace }}
{{- $_ := set $ours "UNUSED_GRACE" .pullSecrets.unusedGrace }}
{{- $_ := set $ours "UNUSED_NOTICE" .pullSecrets.unusedNotice }}
{{- $_ := set $ours "RENEWAL_CONCURRENCY" .pullSecrets.renewalConcurrency }}
{{- $_ := set $ours "RENEWAL_RATE" .pullSecrets.renewalRate }}
{{- $_ := set $ours "LEADER_ELECTION_LEASE_DURATION" .leaderElection.leaseDuration }}
{{- $_ := set $ours "LEADER_ELECTION_RENEW_DEADLINE" .leaderElection.renewDeadline }}
{{- $_ := set $ours "LEADER_ELECTION_RETRY_PERIOD" .leaderElection.retryPeriod }}
{{- $_ := set $ours "LEADER_ELECTION_NAMESPACE" .leaderElection.namespace }}
{{- $_ := set $ours "LOG_LEVEL" .log.level }}
{{- $_ := set $ours "LOG_FORMAT" .log.format }}
{{- if or .extraCa.pem .extraCa.configMap }}
{{- $_ := set $ours "EXTRA_CA_FILE" (printf "/etc/acr-pull-webhook/extra-ca/%s" .extraCa.key) }}
{{- end }}
{{- if or .webhook.clientCa.pem .webhook.clientCa.configMap }}
{{- $_ := set $ours "CLIENT_CA_FILE" (printf "/etc/acr-pull-webhook/client-ca/%s" .webhook.clientCa.key) }}
{{- $_ := set $ours "CLIENT_NAMES" (join "," .webhook.clientCa.names) }}
{{- else if .webhook.clientCa.names }}
{{- fail "webhook.clientCa.names: there is no authority; set webhook.clientCa.pem or webhook.clientCa.configMap" }}
{{- end }}
{{- $secret := include "acr-pull-webhook.certificatesSecret" $ }}
{{- if eq $secret (include "acr-pull-webhook.tlsSecret" $) }}
{{- fail (printf "certificates.provided.secretName: the webhook keeps its secret path in Secret %s and would overwrite your certificate there; give your Secret another name" $secret) }}
{{- end }}
{{- if ne $secret "acr-pull-webhook-certificates" }}
{{- $_ := set $ours "TLS_SECRET" $secret }}
{{- end }}
{{- if ne $name "acr-pull-webhook" }}
{{- $_ := set $ours "WEBHOOK_CONFIGURATION" $name }}
{{- end }}
{{- if eq .certificates.mode "self-managed" }}
{{- $_ := set $ours "CERTIFICATE_LIFETIME" .certificates.selfManaged.lifetime }}
{{- if ne $name "acr-pull-webhook" }}
{{- $_ := set $ours "TLS_NAMES" (printf "%s.%s.svc" $name $.Release.Namespace) }}
{{- end }}
{{- end }}
{{- $settings := dict "AZURE_TENANT_ID" .azure.tenantId "HTTPS_PROXY" .proxy.https "NO_PROXY" (join "," .proxy.noProxy) }}
{{- range $key, $value := $ours }}
{{- $_ := set $settings (printf "ACR_PULL_WEBHOOK_%s" $key) $value }}
{{- end }}
{{- range $key, $value := $settings }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
{{- /* A number from a file is a float, which would be written as 2e+06. */}}
{{ $key }}: {{ kindIs "float64" $value | ternary (int64 $value) $value | toString | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
