# The same options, with the same defaults, as those of spool-cluster.

variable "name" {
  description = "The cluster; becomes part of other names, and its mark."
  type        = string
  default     = "spool"
  validation {
    condition     = can(regex("^[a-z][a-z0-9]{0,15}$", var.name))
    error_message = "At most 16 small letters and digits, a letter first."
  }
}

variable "key" {
  description = "Keypair to log in with."
  type        = string
}

variable "ssh_from" {
  description = "Who may log in, such as 203.0.113.7/32."
  type        = string
  validation {
    condition     = can(cidrhost(var.ssh_from, 0))
    error_message = "A range such as 203.0.113.7/32 is wanted."
  }
}

variable "binary" {
  description = "File with spool for x86-64, or a .tar.gz with it; copied to the bucket."
  type        = string
  default     = ""
  validation {
    condition     = var.binary == "" || fileexists(var.binary)
    error_message = "No such file."
  }
}

variable "binary_url" {
  description = "The same from a release."
  type        = string
  default     = ""
}

variable "binary_sha256" {
  description = "Checksum of what binary_url names."
  type        = string
  default     = ""
  validation {
    condition     = var.binary_sha256 == "" || can(regex("^[0-9a-f]{64}$", var.binary_sha256))
    error_message = "64 digits, as sha256sum prints them."
  }
}

variable "executors" {
  description = "Number of executors."
  type        = number
  default     = 2
  validation {
    condition     = var.executors >= 0 && var.executors <= 200 && floor(var.executors) == var.executors
    error_message = "A whole number, 200 at most, for the addresses of the network."
  }
}

variable "flavor" {
  description = "Flavor of executors; ../flavors.csv has all."
  type        = string
  default     = "m3.medium"
}

variable "scheduler_flavor" {
  description = "Flavor of the scheduler."
  type        = string
  default     = "m3.small"
}

variable "image" {
  description = "Ubuntu 24.04 or newer, or Debian 12 or newer: FFmpeg comes from there."
  type        = string
  default     = "Featured-Ubuntu24"
}

variable "ssh_user" {
  description = "The image's user."
  type        = string
  default     = "ubuntu"
}

variable "scratch" {
  description = "GB of a volume for each executor's intermediate files, instead of its root disk."
  type        = number
  default     = 0
  validation {
    condition     = var.scratch == 0 || var.scratch >= 10
    error_message = "10 GB at least, or 0 for the root disk."
  }
}

variable "drain_timeout" {
  description = "Seconds that rows in hand may take when an executor is told to leave."
  type        = number
  default     = 300
  validation {
    condition     = var.drain_timeout >= 1 && var.drain_timeout <= 3600
    error_message = "1 to 3600 seconds, since the unit's TimeoutStopSec is longer than that."
  }
}

variable "idle_timeout" {
  description = "Seconds without a row after which an executor turns itself off; it stays where this is null."
  type        = number
  default     = null
  validation {
    condition     = var.idle_timeout == null ? true : var.idle_timeout >= 60
    error_message = "60 seconds at least, or null."
  }
}

variable "api" {
  description = "The HTTP API: none, local (by SSH alone), or a range that it is open to, where it wants API keys."
  type        = string
  default     = "local"
  validation {
    condition     = contains(["none", "local"], var.api) || can(cidrhost(var.api, 0))
    error_message = "none, local or a range such as 203.0.113.0/24."
  }
}

variable "database" {
  description = "Where jobs are kept: postgres://USER:PASSWORD@HOST/DATABASE, or a file on the scheduler."
  type        = string
  default     = "/var/lib/spool/jobs.db"
  sensitive   = true
  validation {
    condition     = can(regex("^(postgres(ql)?://|/var/lib/spool/)[A-Za-z0-9._~:/@%+=,-]+$", var.database))
    error_message = "postgres://…, percent-encoded, or a file below /var/lib/spool, which the units may write."
  }
}

variable "bucket" {
  description = "For videos and ladders; NAME-PROJECT unless given."
  type        = string
  default     = ""
  validation {
    condition     = var.bucket == "" || can(regex("^[a-z0-9][a-z0-9.-]{1,45}[a-z0-9]$", var.bucket))
    error_message = "3 to 47 small letters, digits, dots and dashes."
  }
}

variable "use_bucket" {
  description = "The bucket is there already, and not ours to delete."
  type        = bool
  default     = false
}

variable "delete_bucket" {
  description = "Whether `destroy` deletes what is in the bucket; without it `destroy` fails at a bucket that is not empty."
  type        = bool
  default     = false
}

variable "network_cidr" {
  description = "A /24 for the private network."
  type        = string
  default     = "10.42.0.0/24"
  validation {
    condition     = can(regex("^(10|172|192)\\.[0-9]{1,3}\\.[0-9]{1,3}\\.0/24$", var.network_cidr))
    error_message = "A private /24 such as 10.42.0.0/24 is wanted."
  }
}

variable "external_network" {
  description = "The network that floating addresses come from."
  type        = string
  default     = "public"
}

variable "s3_endpoint" {
  description = "The object store, without a slash at the end."
  type        = string
  default     = "https://js2.jetstream-cloud.org:8001"
}

variable "s3_region" {
  description = "What requests to it are signed for."
  type        = string
  default     = "RegionOne"
}

variable "hours" {
  description = "For the estimate."
  type        = number
  default     = 24
}
