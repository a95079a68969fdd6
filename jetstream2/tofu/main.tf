# The network, its rules, the bucket and its keys. Names and marks equal those of spool-cluster, so that its
# `leftovers` finds the resources of both.

locals {
  mark    = "spool-cluster=${var.name}"
  flavors = { for row in csvdecode(file("${path.module}/../flavors.csv")) : row.flavor => row }
  names   = keys(local.flavors)
  # Ranges that the rules allow; empty for a rule that is not enabled.
  ranges = {
    ssh     = var.ssh_from
    api     = contains(["none", "local"], var.api) ? "" : var.api
    private = var.network_cidr
  }
  rules = {
    for row in csvdecode(file("${path.module}/../rules.csv")) :
    "${row.group}-${row.port_min}-${row.from}" => row
    if local.ranges[row.from] != ""
  }
  project       = data.openstack_identity_auth_scope_v3.here.project_id
  bucket        = var.bucket != "" ? var.bucket : "${var.name}-${substr(local.project, 0, 12)}"
  binary_sha256 = var.binary != "" ? filesha256(var.binary) : var.binary_sha256
  binary_object = "bin/spool-${local.binary_sha256}"
  uploaded_url  = "${var.s3_endpoint}/${local.bucket}/${local.binary_object}"
  binary_url    = var.binary != "" ? local.uploaded_url : var.binary_url
  scheduler     = cidrhost(var.network_cidr, 10)

  su_per_hour = local.su_scheduler + var.executors * local.su_executor
  # The network's preconditions refuse a flavor without a rate.
  su_scheduler = tonumber(try(local.flavors[var.scheduler_flavor].su_per_hour, 0))
  su_executor  = tonumber(try(local.flavors[var.flavor].su_per_hour, 0))
  cores = (tonumber(try(local.flavors[var.scheduler_flavor].vcpus, 0)) +
  var.executors * tonumber(try(local.flavors[var.flavor].vcpus, 0)))
  instances = var.executors + 1
  # Limits of the quota; -1 is unlimited.
  max_cores     = data.openstack_compute_limits_v2.limits.max_total_cores
  max_instances = data.openstack_compute_limits_v2.limits.max_total_instances
}

data "openstack_identity_auth_scope_v3" "here" {
  name = "here"
}

# Names are resolved while planning, so that a wrong name fails before anything is created.
data "openstack_networking_network_v2" "external" {
  name     = var.external_network
  external = true
}

data "openstack_images_image_v2" "image" {
  name        = var.image
  most_recent = true
}

data "openstack_compute_flavor_v2" "executor" {
  name = var.flavor
}

data "openstack_compute_flavor_v2" "scheduler" {
  name = var.scheduler_flavor
}

data "openstack_compute_keypair_v2" "key" {
  name = var.key
}

data "openstack_compute_limits_v2" "limits" {
  project_id = local.project
}

resource "openstack_networking_network_v2" "private" {
  name = "${var.name}-network"
  tags = [local.mark, "spool-bucket=${local.bucket}"]

  lifecycle {
    precondition {
      condition     = alltrue([for name in [var.flavor, var.scheduler_flavor] : contains(local.names, name)])
      error_message = "flavor or scheduler_flavor is not in flavors.csv, which has ${join(" ", local.names)}."
    }
    precondition {
      condition     = (var.binary != "") != (var.binary_url != "" && var.binary_sha256 != "")
      error_message = "Set either binary, or binary_url with binary_sha256, to name the spool binary."
    }
    precondition {
      condition     = !var.use_bucket || var.bucket != ""
      error_message = "use_bucket needs bucket."
    }
    # The limits include the resources of the cluster itself, so these checks are exact for the first apply
    # only.
    precondition {
      condition     = local.max_cores < 0 || local.cores <= local.max_cores
      error_message = "Quota exceeded: ${local.cores} cores needed, limit ${local.max_cores}."
    }
    precondition {
      condition     = local.max_instances < 0 || local.instances <= local.max_instances
      error_message = "Quota exceeded: ${local.instances} instances needed, limit ${local.max_instances}."
    }
  }
}

resource "openstack_networking_subnet_v2" "private" {
  name       = "${var.name}-subnet"
  network_id = openstack_networking_network_v2.private.id
  cidr       = var.network_cidr
  tags       = [local.mark]
}

resource "openstack_networking_router_v2" "router" {
  name                = "${var.name}-router"
  external_network_id = data.openstack_networking_network_v2.external.id
  tags                = [local.mark]
}

resource "openstack_networking_router_interface_v2" "private" {
  router_id = openstack_networking_router_v2.router.id
  subnet_id = openstack_networking_subnet_v2.private.id
}

resource "openstack_networking_secgroup_v2" "group" {
  for_each = toset(["scheduler", "executor"])
  name     = "${var.name}-${each.key}"
  tags     = [local.mark]
}

resource "openstack_networking_secgroup_rule_v2" "rule" {
  for_each          = local.rules
  security_group_id = openstack_networking_secgroup_v2.group[each.value.group].id
  direction         = "ingress"
  ethertype         = "IPv4"
  protocol          = each.value.protocol
  port_range_min    = tonumber(each.value.port_min)
  port_range_max    = tonumber(each.value.port_max)
  remote_ip_prefix  = local.ranges[each.value.from]
  description       = each.value.why
}

resource "openstack_objectstorage_container_v1" "bucket" {
  count         = var.use_bucket ? 0 : 1
  name          = local.bucket
  force_destroy = var.delete_bucket
  metadata = {
    "spool-cluster" = var.name
  }
  # Created after the network's preconditions were checked.
  depends_on = [openstack_networking_network_v2.private]
}

resource "openstack_objectstorage_object_v1" "binary" {
  count          = var.binary != "" ? 1 : 0
  container_name = local.bucket
  name           = local.binary_object
  source         = var.binary
  depends_on     = [openstack_objectstorage_container_v1.bucket]
}

resource "openstack_identity_ec2_credential_v3" "keys" {
  depends_on = [openstack_networking_network_v2.private]
}

resource "random_id" "token" {
  byte_length = 24
}
