# What the templates are filled in with; see the variables of the module above.

variable "scheduler" {
  description = "Address and port of the scheduler on the private network."
  type        = string
}

variable "token" {
  description = "What executors and clients show the scheduler."
  type        = string
  sensitive   = true
}

variable "database" {
  description = "Where jobs are kept."
  type        = string
}

variable "bucket" {
  description = "For videos and ladders."
  type        = string
}

variable "drain_timeout" {
  description = "Seconds for rows in hand."
  type        = number
}

variable "idle_timeout" {
  description = "Seconds without a row, or null."
  type        = number
  default     = null
}

variable "scratch" {
  description = "GB of a scratch volume, or 0."
  type        = number
}

variable "api" {
  description = "none, local, or a range."
  type        = string
}

variable "s3_endpoint" {
  description = "The object store."
  type        = string
}

variable "s3_region" {
  description = "Its region."
  type        = string
}

variable "s3_access" {
  description = "Access key."
  type        = string
}

variable "s3_secret" {
  description = "Secret key."
  type        = string
  sensitive   = true
}

variable "binary_url" {
  description = "Where spool is fetched from."
  type        = string
}

variable "binary_sha256" {
  description = "Its checksum."
  type        = string
}
