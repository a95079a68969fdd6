# What do instances get? cloud-init's files, with the units and scripts that spool-cluster takes (lib/render.bash). No provider.

locals {
  folder = "${path.module}/../.."
  open   = !contains(["none", "local"], var.api)
  blank = {
    scheduler          = var.scheduler
    token              = var.token
    store              = var.store
    bucket             = var.bucket
    grace              = var.grace
    leave_idle         = var.leave_idle == null ? "# SPOOL_LEAVE_IDLE: it stays" : "SPOOL_LEAVE_IDLE=${var.leave_idle}"
    scratch            = var.scratch > 0 ? "volume" : "root"
    api_listen         = local.open ? "0.0.0.0:8080" : "127.0.0.1:8080"
    api_access         = local.open ? "keys" : "local"
    scheduler_units    = var.api == "none" ? "spool-scheduler" : "spool-scheduler, spool-server"
    s3_endpoint        = var.s3_endpoint
    s3_region          = var.s3_region
    s3_access          = var.s3_access
    s3_secret          = var.s3_secret
    binary_url         = var.binary_url
    binary_sha256      = var.binary_sha256
    scheduler_unit     = filebase64("${local.folder}/systemd/spool-scheduler.service")
    server_unit        = filebase64("${local.folder}/systemd/spool-server.service")
    executor_unit      = filebase64("${local.folder}/systemd/spool-executor.service")
    make_scratch       = filebase64("${local.folder}/cloud-init/files/make-scratch")
    fetch_spool        = filebase64("${local.folder}/cloud-init/files/fetch-spool")
    set_up             = filebase64("${local.folder}/cloud-init/files/set-up")
    spool_here         = filebase64("${local.folder}/cloud-init/files/spool-here")
    off_when_idle      = filebase64("${local.folder}/cloud-init/files/off-when-idle")
    off_when_idle_conf = filebase64("${local.folder}/cloud-init/files/off-when-idle.conf")
  }
}
