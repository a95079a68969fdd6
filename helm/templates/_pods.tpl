{{/* What the pods of all roles have in common. */}}

{{/* Of a pod: root is called with . and the role's values. */}}
{{- define "spool.pod" -}}
{{- $root := .root -}}
serviceAccountName: {{ include "spool.serviceAccount" $root }}
# Spool asks Kubernetes nothing. A role's own token is mounted by whoever gives the role.
automountServiceAccountToken: false
# Variables like SPOOL_SERVER_PORT, which Kubernetes would make of services, are no settings.
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with $root.Values.podSecurity.runAsUser }}
  runAsUser: {{ int64 . }}
  {{- end }}
  {{- with $root.Values.podSecurity.runAsGroup }}
  runAsGroup: {{ int64 . }}
  {{- end }}
  {{- with $root.Values.podSecurity.fsGroup }}
  fsGroup: {{ int64 . }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .role.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .role.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .role.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .role.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
Of a container. FFmpeg's sandbox (Landlock, seccomp) needs no privilege, and takes more away than this does. `spool` is what gets
SIGTERM: there is no shell in between.
*/}}
{{- define "spool.container" -}}
image: {{ include "spool.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [spool]
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Variables of every container: logs, the bucket, and what was asked for besides. */}}
{{- define "spool.env" -}}
- name: SPOOL_LOG_FORMAT
  value: {{ .Values.log.format }}
{{- with .Values.log.filter }}
- name: SPOOL_LOG
  value: {{ . | quote }}
{{- end }}
{{- with .Values.s3.endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.s3.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- if not .Values.s3.pathStyle }}
- name: AWS_VIRTUAL_HOSTED_STYLE_REQUEST
  value: "true"
{{- end }}
{{- if or .Values.s3.existingSecret .Values.s3.accessKeyId }}
{{- $secret := default (printf "%s-s3" (include "spool.fullname" .)) .Values.s3.existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef: {name: {{ $secret }}, key: {{ .Values.s3.accessKeyIdKey }}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef: {name: {{ $secret }}, key: {{ .Values.s3.secretAccessKeyKey }}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The root is read-only, so what is written at all is written here. */}}
{{- define "spool.env.scratch" -}}
- name: SPOOL_SCRATCH
  value: /scratch
- name: TMPDIR
  value: /scratch
{{- end -}}

{{- define "spool.env.database" -}}
- name: SPOOL_DATABASE
  valueFrom:
    secretKeyRef:
      name: {{ default (printf "%s-database" (include "spool.fullname" .)) .Values.database.postgres.existingSecret }}
      key: {{ ternary .Values.database.postgres.key "url" (ne .Values.database.postgres.existingSecret "") }}
{{- end -}}

{{- define "spool.env.token" -}}
- name: SPOOL_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ default (printf "%s-token" (include "spool.fullname" .)) .Values.token.existingSecret }}
      key: {{ ternary .Values.token.key "token" (ne .Values.token.existingSecret "") }}
{{- end -}}

{{/* A role's resources, with its scratch space and a GiB for logs, so that Kubernetes looks for a node with as much. */}}
{{- define "spool.resources" -}}
{{- $storage := dict "ephemeral-storage" (printf "%dGi" (add 1 (int .scratch.sizeGiB))) -}}
{{- mergeOverwrite (deepCopy .resources) (dict "requests" $storage "limits" $storage) | toYaml -}}
{{- end -}}

{{/* Pods restart when secrets change that values hold. Those that were made here or are yours take `kubectl rollout restart`. */}}
{{- define "spool.annotations" -}}
{{- $v := .root.Values -}}
checksum/secrets: {{ list $v.database.postgres.url $v.s3.accessKeyId $v.s3.secretAccessKey $v.token.value | toJson | sha256sum }}
{{- with .role.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}
