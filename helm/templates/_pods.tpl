{{/* Parts of the pod templates that all roles share. */}}

{{/* Fields of a pod spec. Call it with a dict of root (.) and role (the role's values). */}}
{{- define "spool.pod" -}}
{{- $root := .root -}}
serviceAccountName: {{ include "spool.serviceAccount" $root }}
# Spool does not call the Kubernetes API. The token of a cloud role is mounted by that cloud's webhook.
automountServiceAccountToken: false
# Kubernetes would otherwise define variables such as SPOOL_API_PORT from services, which are not settings.
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
Fields of a container. FFmpeg's sandbox (Landlock, seccomp) needs no privilege, and is stricter than this
context. `spool` receives SIGTERM directly: there is no shell in between.
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

{{/* Environment of every container: logs, the bucket, and extraEnv. */}}
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

{{/* The root file system is read-only, so all temporary files go to the scratch volume. */}}
{{- define "spool.env.scratch" -}}
- name: SPOOL_SCRATCH
  value: /scratch
- name: TMPDIR
  value: /scratch
{{- end -}}

{{- define "spool.env.database" -}}
{{- $postgres := .Values.database.postgres -}}
- name: SPOOL_DATABASE
  valueFrom:
    secretKeyRef:
      name: {{ default (printf "%s-database" (include "spool.fullname" .)) $postgres.existingSecret }}
      key: {{ ternary $postgres.key "url" (ne $postgres.existingSecret "") }}
{{- end -}}

{{- define "spool.env.token" -}}
- name: SPOOL_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ default (printf "%s-token" (include "spool.fullname" .)) .Values.token.existingSecret }}
      key: {{ ternary .Values.token.key "token" (ne .Values.token.existingSecret "") }}
{{- end -}}

{{/* TLS between scheduler and executors, from the secret of a certificate. */}}
{{- define "spool.env.tls" -}}
{{- if .Values.tls.enabled -}}
- name: SPOOL_TLS_CERT
  value: /tls/tls.crt
- name: SPOOL_TLS_KEY
  value: /tls/tls.key
- name: SPOOL_TLS_CA
  value: /tls/ca.crt
{{- end -}}
{{- end -}}

{{- define "spool.tls.mount" -}}
{{- if .Values.tls.enabled -}}
- {name: tls, mountPath: /tls, readOnly: true}
{{- end -}}
{{- end -}}

{{- define "spool.tls.volume" -}}
{{- if .Values.tls.enabled -}}
- name: tls
  secret:
    secretName: {{ include "spool.tls.secret" . }}
    # Readable for the pod's group, which fsGroup sets.
    defaultMode: 0440
{{- end -}}
{{- end -}}

{{- define "spool.tls.secret" -}}
{{- default (printf "%s-tls" (include "spool.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}

{{/*
A role's resources plus ephemeral storage: its scratch space and 1 GiB for logs, so that Kubernetes chooses a
node with enough disk space.
*/}}
{{- define "spool.resources" -}}
{{- $storage := dict "ephemeral-storage" (printf "%dGi" (add 1 (int .scratch.sizeGiB))) -}}
{{- mergeOverwrite (deepCopy .resources) (dict "requests" $storage "limits" $storage) | toYaml -}}
{{- end -}}

{{/*
Pod annotations. The checksum restarts pods when a secret in the values changes. After a change of a generated
or an existing secret, run `kubectl rollout restart`.
*/}}
{{- define "spool.annotations" -}}
{{- $v := .root.Values -}}
{{- $secrets := list $v.database.postgres.url $v.s3.accessKeyId $v.s3.secretAccessKey $v.token.value }}
checksum/secrets: {{ $secrets | toJson | sha256sum }}
{{- with .role.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}
