# The options of spool-cluster, with equal defaults.

variable "name" {
  description = "Name of the cluster; part of its resources' names and their mark."
  type        = string
  default     = "spool"
  validation {
    condition     = can(regex("^[a-z][a-z0-9]{0,15}$", var.name))
    error_message = "Must be at most 16 lower-case letters and digits, starting with a letter."
  }
}

variable "key" {
  description = "Keypair for logins."
  type        = string
}

variable "ssh_from" {
  description = "Range of addresses that may log in, such as 203.0.113.7/32."
  type        = string
  validation {
    condition     = can(cidrhost(var.ssh_from, 0))
    error_message = "Must be a range such as 203.0.113.7/32."
  }
}

variable "binary" {
  description = "File with the spool binary for x86-64, or a .tar.gz with it; is copied to the bucket."
  type        = string
  default     = ""
  validation {
    condition     = var.binary == "" || fileexists(var.binary)
    error_message = "The file does not exist."
  }
}

variable "binary_url" {
  description = "URL of the binary in a release, as an alternative to binary."
  type        = string
  default     = ""
}

variable "binary_sha256" {
  description = "SHA-256 checksum of the file at binary_url."
  type        = string
  default     = ""
  validation {
    condition     = var.binary_sha256 == "" || can(regex("^[0-9a-f]{64}$", var.binary_sha256))
    error_message = "Must be 64 hexadecimal digits, as sha256sum prints them."
  }
}

variable "executors" {
  description = "Number of executors."
  type        = number
  default     = 2
  validation {
    condition     = var.executors >= 0 && var.executors <= 200 && floor(var.executors) == var.executors
    error_message = "Must be a whole number of at most 200, because of the network's addresses."
  }
}

variable "flavor" {
  description = "Flavor of executors; ../flavors.csv lists all."
  type        = string
  default     = "m3.medium"
}

variable "scheduler_flavor" {
  description = "Flavor of the scheduler."
  type        = string
  default     = "m3.small"
}

variable "image" {
  description = "Image of the instances: Ubuntu 24.04 or newer, or Debian 12 or newer, for its FFmpeg."
  type        = string
  default     = "Featured-Ubuntu24"
}

variable "ssh_user" {
  description = "User of the image."
  type        = string
  default     = "ubuntu"
}

variable "scratch" {
  description = "Size in GB of a scratch volume for each executor; 0 uses its root disk."
  type        = number
  default     = 0
  validation {
    condition     = var.scratch == 0 || var.scratch >= 10
    error_message = "Must be at least 10 GB, or 0 for the root disk."
  }
}

variable "drain_timeout" {
  description = "Seconds for running rows to finish when an executor drains."
  type        = number
  default     = 300
  validation {
    condition     = var.drain_timeout >= 1 && var.drain_timeout <= 3600
    error_message = "Must be 1 to 3600 seconds, because the unit's TimeoutStopSec is just above that."
  }
}

variable "idle_timeout" {
  description = "Seconds without a row after which an executor shuts its instance off; null never does."
  type        = number
  default     = null
  validation {
    condition     = var.idle_timeout == null ? true : var.idle_timeout >= 60
    error_message = "Must be at least 60 seconds, or null."
  }
}

variable "api" {
  description = "Access to the HTTP API: none, local (by SSH only), or a range that may use it with API keys."
  type        = string
  default     = "local"
  validation {
    condition     = contains(["none", "local"], var.api) || can(cidrhost(var.api, 0))
    error_message = "Must be none, local or a range such as 203.0.113.0/24."
  }
}

variable "database" {
  description = "Database of jobs: postgres://USER:PASSWORD@HOST/DATABASE, or a file on the scheduler."
  type        = string
  default     = "/var/lib/spool/jobs.db"
  sensitive   = true
  validation {
    condition     = can(regex("^(postgres(ql)?://|/var/lib/spool/)[A-Za-z0-9._~:/@%+=,-]+$", var.database))
    error_message = "Must be postgres://…, percent-encoded, or a file below /var/lib/spool."
  }
}

variable "bucket" {
  description = "Bucket for videos and ladders; the default is NAME-PROJECT."
  type        = string
  default     = ""
  validation {
    condition     = var.bucket == "" || can(regex("^[a-z0-9][a-z0-9.-]{1,45}[a-z0-9]$", var.bucket))
    error_message = "Must be 3 to 47 lower-case letters, digits, dots and dashes."
  }
}

variable "use_bucket" {
  description = "Whether to use an existing bucket, which `destroy` does not delete."
  type        = bool
  default     = false
}

variable "delete_bucket" {
  description = "Whether `destroy` deletes the bucket's objects; otherwise it fails if there are any."
  type        = bool
  default     = false
}

variable "network_cidr" {
  description = "Range of the private network, a /24."
  type        = string
  default     = "10.42.0.0/24"
  validation {
    condition     = can(regex("^(10|172|192)\\.[0-9]{1,3}\\.[0-9]{1,3}\\.0/24$", var.network_cidr))
    error_message = "Must be a private /24 such as 10.42.0.0/24."
  }
}

variable "external_network" {
  description = "Network of floating addresses."
  type        = string
  default     = "public"
}

variable "s3_endpoint" {
  description = "URL of the object store, without a trailing slash."
  type        = string
  default     = "https://js2.jetstream-cloud.org:8001"
}

variable "s3_region" {
  description = "Region for which requests to the object store are signed."
  type        = string
  default     = "RegionOne"
}

variable "hours" {
  description = "Hours of the cost estimate."
  type        = number
  default     = 24
}
