{{/* What things are called, and by what they are found. */}}

{{- define "spool.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for what is appended to it. */}}
{{- define "spool.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "spool.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "spool.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What never changes over a release's life: selectors are made of it, and cannot be changed. */}}
{{- define "spool.selector" -}}
app.kubernetes.io/name: {{ include "spool.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "spool.labels" -}}
{{ include "spool.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "spool.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "spool.serviceAccount" -}}
{{- default (ternary (include "spool.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{/* Where an executor finds its scheduler; KEDA asks from another namespace. */}}
{{- define "spool.scheduler" -}}
{{- printf "%s-scheduler.%s.svc:50050" (include "spool.fullname" .) .Release.Namespace -}}
{{- end -}}

{{/* How long rows in hand may take once an executor has to go, and how long until it is killed. */}}
{{- define "spool.drainTimeout" -}}
{{- ternary .Values.rows.limitSeconds .Values.executors.drainTimeoutSeconds (kindIs "invalid" .Values.executors.drainTimeoutSeconds) | int -}}
{{- end -}}

{{- define "spool.terminationGrace" -}}
{{- $given := .Values.executors.terminationGracePeriodSeconds -}}
{{- ternary (add (include "spool.drainTimeout" . | int) .Values.rows.marginSeconds) $given (kindIs "invalid" $given) | int -}}
{{- end -}}
