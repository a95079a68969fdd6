{{/* Egress rules that several policies share. A rule without `to` allows every address. */}}

{{- define "spool.egress.dns" -}}
{{- $dns := .Values.networkPolicy.dns -}}
- ports: [{protocol: UDP, port: {{ $dns.port }}}, {protocol: TCP, port: {{ $dns.port }}}]
  {{- with $dns.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "spool.egress.database" -}}
- ports:
    {{- range .Values.networkPolicy.database.ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with .Values.networkPolicy.database.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "spool.egress.internet" -}}
- ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  to:
    {{- range .blocks }}
    - ipBlock:
        {{- toYaml . | nindent 8 }}
    {{- end }}
{{- end -}}

{{/*
The bucket, at the endpoint's port or the default port of its scheme. Without an endpoint the bucket is on the
Internet, unless networkPolicy.bucket.to names its peers.
*/}}
{{- define "spool.egress.bucket" -}}
{{- $policy := .Values.networkPolicy -}}
{{- $endpoint := default "https://" .Values.s3.endpoint | urlParse -}}
{{- $default := ternary "80" "443" (eq $endpoint.scheme "http") -}}
{{- $port := regexFind ":[0-9]+$" $endpoint.host | trimPrefix ":" | default $default -}}
{{- if or .Values.s3.endpoint $policy.bucket.to -}}
- ports: [{protocol: TCP, port: {{ $port }}}]
  {{- with $policy.bucket.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- else -}}
{{- include "spool.egress.internet" (dict "ports" (list 443) "blocks" $policy.internet.blocks) -}}
{{- end -}}
{{- end -}}
