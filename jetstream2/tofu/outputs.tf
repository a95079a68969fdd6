output "estimate" {
  description = "Estimated cost of the running cluster."
  value = join(", ", [
    "${local.su_per_hour} SU an hour",
    "${local.su_per_hour * var.hours} in ${var.hours} hours",
    "by rates of ${try(local.flavors[var.flavor].read, "no date")}",
  ])
}

output "notes" {
  description = "Notes of flavors.csv on the flavors."
  value = compact([
    for flavor in distinct([var.flavor, var.scheduler_flavor]) : try(local.flavors[flavor].note, "")
  ])
}

output "address" {
  description = "Login of the scheduler."
  value       = "${var.ssh_user}@${openstack_networking_floatingip_v2.scheduler.address}"
}

output "bucket" {
  description = "Bucket of videos and ladders."
  value       = "s3://${local.bucket}/"
}

output "transcode" {
  description = "Example of a first command."
  value = join(" ", [
    "ssh ${var.ssh_user}@${openstack_networking_floatingip_v2.scheduler.address} sudo spool-here transcode",
    "s3://${local.bucket}/uploads/talk.mp4 -o s3://${local.bucket}/media/talk/",
  ])
}
