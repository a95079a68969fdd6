# The instances, their addresses and volumes. The module cloud-init renders their user data.

module "cloud_init" {
  source        = "./cloud-init"
  scheduler     = "${local.scheduler}:50050"
  token         = random_id.token.hex
  database      = var.database
  bucket        = local.bucket
  drain_timeout = var.drain_timeout
  idle_timeout  = var.idle_timeout
  scratch       = var.scratch
  api           = var.api
  s3_endpoint   = var.s3_endpoint
  s3_region     = var.s3_region
  s3_access     = openstack_identity_ec2_credential_v3.keys.access
  s3_secret     = openstack_identity_ec2_credential_v3.keys.secret
  binary_url    = local.binary_url
  binary_sha256 = local.binary_sha256
}

resource "openstack_networking_port_v2" "scheduler" {
  name               = "${var.name}-scheduler"
  network_id         = openstack_networking_network_v2.private.id
  security_group_ids = [openstack_networking_secgroup_v2.group["scheduler"].id]
  tags               = [local.mark]
  fixed_ip {
    subnet_id  = openstack_networking_subnet_v2.private.id
    ip_address = local.scheduler
  }
}

resource "openstack_networking_floatingip_v2" "scheduler" {
  pool       = var.external_network
  port_id    = openstack_networking_port_v2.scheduler.id
  tags       = [local.mark]
  depends_on = [openstack_networking_router_interface_v2.private]
}

resource "openstack_compute_instance_v2" "scheduler" {
  name      = "${var.name}-scheduler"
  image_id  = data.openstack_images_image_v2.image.id
  flavor_id = data.openstack_compute_flavor_v2.scheduler.id
  key_pair  = data.openstack_compute_keypair_v2.key.name
  user_data = module.cloud_init.scheduler
  metadata = {
    "spool-cluster" = var.name
    "spool-role"    = "scheduler"
  }
  network {
    port = openstack_networking_port_v2.scheduler.id
  }
  lifecycle {
    # Its disk holds the jobs unless they are in PostgreSQL, so changes do not replace it; `tofu apply
    # -replace` does.
    ignore_changes = [user_data, image_id]
  }
  depends_on = [
    openstack_networking_router_interface_v2.private,
    openstack_networking_secgroup_rule_v2.rule,
    openstack_objectstorage_object_v1.binary,
  ]
}

resource "openstack_blockstorage_volume_v3" "scratch" {
  count = var.scratch > 0 ? var.executors : 0
  name  = "${var.name}-scratch-${count.index + 1}"
  size  = var.scratch
  metadata = {
    "spool-cluster" = var.name
  }
  depends_on = [openstack_networking_network_v2.private]
}

resource "openstack_compute_instance_v2" "executor" {
  count     = var.executors
  name      = "${var.name}-executor-${count.index + 1}"
  image_id  = data.openstack_images_image_v2.image.id
  flavor_id = data.openstack_compute_flavor_v2.executor.id
  key_pair  = data.openstack_compute_keypair_v2.key.name
  user_data = module.cloud_init.executor
  metadata = {
    "spool-cluster" = var.name
    "spool-role"    = "executor"
  }
  security_groups = [openstack_networking_secgroup_v2.group["executor"].name]
  # Nova waits a minute for the shutdown, which is too short for rows; `spool-cluster drain` waits for them.
  stop_before_destroy = true
  network {
    uuid = openstack_networking_network_v2.private.id
  }
  # With block devices the image has to be listed too, beside the scratch volume.
  dynamic "block_device" {
    for_each = var.scratch > 0 ? [
      {
        uuid        = data.openstack_images_image_v2.image.id
        source      = "image"
        destination = "local"
        index       = 0
      },
      {
        uuid        = openstack_blockstorage_volume_v3.scratch[count.index].id
        source      = "volume"
        destination = "volume"
        index       = -1
      },
    ] : []
    content {
      uuid                  = block_device.value.uuid
      source_type           = block_device.value.source
      destination_type      = block_device.value.destination
      boot_index            = block_device.value.index
      delete_on_termination = block_device.value.source == "image"
    }
  }
  depends_on = [
    openstack_networking_subnet_v2.private,
    openstack_networking_router_interface_v2.private,
    openstack_networking_secgroup_rule_v2.rule,
    openstack_objectstorage_object_v1.binary,
  ]
}
