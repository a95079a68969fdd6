{{/* Names and selector labels. */}}

{{- define "spool.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 50 characters, so that suffixed names stay within the limit of 63. */}}
{{- define "spool.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "spool.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "spool.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change over a release's life, because selectors are immutable. */}}
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
{{- $account := .Values.serviceAccount -}}
{{- default (ternary (include "spool.fullname" .) "default" $account.create) $account.name -}}
{{- end -}}

{{/* Address of the scheduler, with its namespace because KEDA connects from another one. */}}
{{- define "spool.scheduler" -}}
{{- printf "%s-scheduler.%s.svc:50050" (include "spool.fullname" .) .Release.Namespace -}}
{{- end -}}

{{/* Seconds for running rows to finish once an executor is terminated. */}}
{{- define "spool.drainTimeout" -}}
{{- $given := .Values.executors.drainTimeoutSeconds -}}
{{- ternary .Values.rows.limitSeconds $given (kindIs "invalid" $given) | int -}}
{{- end -}}

{{/* Seconds until Kubernetes kills an executor that is terminated. */}}
{{- define "spool.terminationGrace" -}}
{{- $given := .Values.executors.terminationGracePeriodSeconds -}}
{{- $derived := add (include "spool.drainTimeout" . | int) .Values.rows.marginSeconds -}}
{{- ternary $derived $given (kindIs "invalid" $given) | int -}}
{{- end -}}
