# The network, its rules, the bucket and its keys. Names and marks are those of spool-cluster, which can tell what is left of both.

locals {
  mark    = "spool-cluster=${var.name}"
  flavors = { for row in csvdecode(file("${path.module}/../flavors.csv")) : row.flavor => row }
  # Where a rule lets in from; none where nobody is.
  ranges = {
    ssh     = var.ssh_from
    api     = contains(["none", "local"], var.api) ? "" : var.api
    private = var.network_cidr
  }
  rules = {
    for row in csvdecode(file("${path.module}/../rules.csv")) : "${row.group}-${row.port_min}-${row.from}" => row
    if local.ranges[row.from] != ""
  }
  project       = data.openstack_identity_auth_scope_v3.here.project_id
  bucket        = var.bucket != "" ? var.bucket : "${var.name}-${substr(local.project, 0, 12)}"
  binary_sha256 = var.binary != "" ? filesha256(var.binary) : var.binary_sha256
  binary_object = "bin/spool-${local.binary_sha256}"
  binary_url    = var.binary != "" ? "${var.s3_endpoint}/${local.bucket}/${local.binary_object}" : var.binary_url
  scheduler     = cidrhost(var.network_cidr, 10)

  su_per_hour = local.su_scheduler + var.executors * local.su_executor
  # A flavor without a rate is refused by the network's conditions.
  su_scheduler = tonumber(try(local.flavors[var.scheduler_flavor].su_per_hour, 0))
  su_executor  = tonumber(try(local.flavors[var.flavor].su_per_hour, 0))
  cores = (tonumber(try(local.flavors[var.scheduler_flavor].vcpus, 0)) +
  var.executors * tonumber(try(local.flavors[var.flavor].vcpus, 0)))
  # What the quota has at most; of a cloud that does not limit it, -1.
  most_cores     = data.openstack_compute_limits_v2.limits.max_total_cores
  most_instances = data.openstack_compute_limits_v2.limits.max_total_instances
}

data "openstack_identity_auth_scope_v3" "here" {
  name = "here"
}

# What names mean is asked while planning: one that is wrong fails before anything is made.
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
      condition     = contains(keys(local.flavors), var.flavor) && contains(keys(local.flavors), var.scheduler_flavor)
      error_message = "flavors.csv has no rate for flavor or scheduler_flavor; it has ${join(" ", keys(local.flavors))}."
    }
    precondition {
      condition     = (var.binary != "") != (var.binary_url != "" && var.binary_sha256 != "")
      error_message = "Either binary, or binary_url with binary_sha256: which spool is to run?"
    }
    precondition {
      condition     = !var.use_bucket || var.bucket != ""
      error_message = "use_bucket wants bucket: which?"
    }
    # Of a cluster that is there its own cores are in use already, so this holds for the first apply alone.
    precondition {
      condition     = local.most_cores < 0 || local.cores <= local.most_cores
      error_message = "The quota is too small: ${local.cores} cores are wanted, and ${local.most_cores} are the most."
    }
    precondition {
      condition     = local.most_instances < 0 || var.executors + 1 <= local.most_instances
      error_message = "The quota is too small: ${var.executors + 1} instances are wanted, and ${local.most_instances} are the most."
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
  # Not before the conditions were looked at.
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
