{{/* Labels of every object; kustomize has the first one, too. */}}
{{- define "extproc.labels" -}}
app.kubernetes.io/part-of: vllm-extproc
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The labels of the picker's pods. */}}
{{- define "extproc.selector" -}}
app.kubernetes.io/name: extproc-picker
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "extproc.pool" -}}
{{ .Values.pool.name | default .Release.Name }}
{{- end }}

{{/* The labels of the vLLM pods. */}}
{{- define "extproc.serverLabels" -}}
{{- if not .Values.pool.matchLabels -}}
{{- fail "pool.matchLabels: give the labels of the vLLM pods" -}}
{{- end -}}
{{- toYaml .Values.pool.matchLabels -}}
{{- end }}

{{/* The peers of a NetworkPolicy that gateways of the provider call from. */}}
{{- define "extproc.gateways" -}}
{{- if eq .Values.gateway.provider "gke" -}}
- ipBlock:
    cidr: {{ .Values.gateway.gkeProxyRange }}
- ipBlock:
    cidr: 35.191.0.0/16
- ipBlock:
    cidr: 130.211.0.0/22
{{- else -}}
- namespaceSelector: {}
  podSelector:
    matchExpressions:
    - key: {{ ternary "gateway.envoyproxy.io/owning-gateway-name" "gateway.networking.k8s.io/gateway-name" (eq .Values.gateway.provider "envoy-ai-gateway") }}
      operator: Exists
{{- end }}
{{- end }}

{{/* GKE's class has a name of its own; the others are called like the provider. */}}
{{- define "extproc.gatewayClass" -}}
{{ ternary "gke-l7-regional-external-managed" .Values.gateway.provider (eq .Values.gateway.provider "gke") }}
{{- end }}
