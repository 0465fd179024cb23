{{- define "headwater.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "headwater.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "headwater.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "headwater.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Labels of every object. Call with (dict "root" $ "component" "gateway"). */ -}}
{{- define "headwater.labels" -}}
{{ include "headwater.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: headwater
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "headwater.selectorLabels" -}}
app.kubernetes.io/name: {{ include "headwater.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- /* Call with (dict "root" $ "image" .Values.gateway.image). */ -}}
{{- define "headwater.image" -}}
{{- $registry := default .root.Values.global.imageRegistry .image.registry -}}
{{- $name := .image.repository -}}
{{- if $registry -}}
{{- $name = printf "%s/%s" (trimSuffix "/" $registry) .image.repository -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* The port of the collector that traces are sent to. */ -}}
{{- define "headwater.traces.port" -}}
{{- $url := urlParse .Values.traces.endpoint -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- default (eq $url.scheme "https" | ternary "443" "80") $port -}}
{{- end -}}

{{- define "headwater.operator.serviceAccountName" -}}
{{- $default := printf "%s-operator" (include "headwater.fullname" .) -}}
{{- if .Values.operator.serviceAccount.create -}}
{{- default $default .Values.operator.serviceAccount.name -}}
{{- else -}}
{{- required "operator.serviceAccount.name is needed when operator.serviceAccount.create is false" .Values.operator.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "headwater.gateway.serviceAccountName" -}}
{{- $default := printf "%s-gateway" (include "headwater.fullname" .) -}}
{{- if .Values.gateway.serviceAccount.create -}}
{{- default $default .Values.gateway.serviceAccount.name -}}
{{- else -}}
{{- required "gateway.serviceAccount.name is needed when gateway.serviceAccount.create is false" .Values.gateway.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* The Secret with the nodes' token; fails unless exactly one of the two values is given. */ -}}
{{- define "headwater.nodeToken.secretName" -}}
{{- if and .Values.nodeToken.existingSecret .Values.nodeToken.value -}}
{{- fail "nodeToken: give existingSecret or value, not both" -}}
{{- end -}}
{{- if .Values.nodeToken.existingSecret -}}
{{- .Values.nodeToken.existingSecret -}}
{{- else if .Values.nodeToken.value -}}
{{- printf "%s-node-token" (include "headwater.fullname" .) -}}
{{- else -}}
{{- fail "nodeToken: set nodeToken.existingSecret (a Secret with the key \"token\") or nodeToken.value (32 characters or more)" -}}
{{- end -}}
{{- end -}}

{{- define "headwater.apiKeys.secretName" -}}
{{- if and .Values.apiKeys.existingSecret .Values.apiKeys.values -}}
{{- fail "apiKeys: give existingSecret or values, not both" -}}
{{- end -}}
{{- if .Values.apiKeys.existingSecret -}}
{{- .Values.apiKeys.existingSecret -}}
{{- else if .Values.apiKeys.values -}}
{{- printf "%s-api-keys" (include "headwater.fullname" .) -}}
{{- else -}}
{{- fail "apiKeys: set apiKeys.existingSecret (each key an API key, its value the secret) or apiKeys.values" -}}
{{- end -}}
{{- end -}}

{{- define "headwater.imagePullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ if kindIs "map" . }}{{ .name | quote }}{{ else }}{{ . | quote }}{{ end }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* Where and under which rights a Pod runs. Call with .Values.gateway or .Values.operator. */ -}}
{{- define "headwater.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{- /* The Pod's own name, address and namespace. */ -}}
{{- define "headwater.podEnv" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- end -}}

{{- define "headwater.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end -}}
