output "estimate" {
  description = "What the cluster takes while it runs."
  value = join(", ", [
    "${local.su_per_hour} SU an hour",
    "${local.su_per_hour * var.hours} in ${var.hours} hours",
    "by rates of ${try(local.flavors[var.flavor].read, "no date")}",
  ])
}

output "mind" {
  description = "What flavors.csv notes of the flavors."
  value       = compact([for flavor in distinct([var.flavor, var.scheduler_flavor]) : try(local.flavors[flavor].note, "")])
}

output "address" {
  description = "Where to log in."
  value       = "${var.ssh_user}@${openstack_networking_floatingip_v2.scheduler.address}"
}

output "bucket" {
  description = "Where videos and ladders are."
  value       = "s3://${local.bucket}/"
}

output "transcode" {
  description = "A first command."
  value = join(" ", [
    "ssh ${var.ssh_user}@${openstack_networking_floatingip_v2.scheduler.address} sudo spool-here transcode",
    "s3://${local.bucket}/uploads/talk.mp4 -o s3://${local.bucket}/media/talk/",
  ])
}
