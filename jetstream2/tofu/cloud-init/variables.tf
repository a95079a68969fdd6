# Values of the templates' placeholders; see the variables of the parent module.

variable "scheduler" {
  description = "Address and port of the scheduler on the private network."
  type        = string
}

variable "token" {
  description = "Bearer token by which the scheduler authenticates executors and clients."
  type        = string
  sensitive   = true
}

variable "database" {
  description = "Database of jobs."
  type        = string
}

variable "bucket" {
  description = "Bucket for videos and ladders."
  type        = string
}

variable "drain_timeout" {
  description = "Seconds for running rows to finish when an executor drains."
  type        = number
}

variable "idle_timeout" {
  description = "Seconds without a row after which an executor shuts its instance off, or null."
  type        = number
  default     = null
}

variable "scratch" {
  description = "Size of a scratch volume in GB, or 0."
  type        = number
}

variable "api" {
  description = "Access to the HTTP API: none, local, or a range."
  type        = string
}

variable "s3_endpoint" {
  description = "URL of the object store."
  type        = string
}

variable "s3_region" {
  description = "Region of the object store."
  type        = string
}

variable "s3_access" {
  description = "Access key of the object store."
  type        = string
}

variable "s3_secret" {
  description = "Secret key of the object store."
  type        = string
  sensitive   = true
}

variable "binary_url" {
  description = "URL of the spool binary."
  type        = string
}

variable "binary_sha256" {
  description = "SHA-256 checksum of the spool binary."
  type        = string
}
