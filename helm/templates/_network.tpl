{{/* Rules of egress that several policies have. Without `to`, a rule is good for anywhere. */}}

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

{{/* The bucket, at the port that the endpoint names or its scheme has. Without an endpoint it is on the Internet unless told. */}}
{{- define "spool.egress.bucket" -}}
{{- $policy := .Values.networkPolicy -}}
{{- $endpoint := default "https://" .Values.s3.endpoint | urlParse -}}
{{- $port := regexFind ":[0-9]+$" $endpoint.host | trimPrefix ":" | default (ternary "80" "443" (eq $endpoint.scheme "http")) -}}
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
