# Renders the user data of instances from the templates of cloud-init/, as spool-cluster does
# (lib/render.bash). Uses no provider.

locals {
  folder = "${path.module}/../.."
  open   = !contains(["none", "local"], var.api)
  stays  = "# SPOOL_IDLE_TIMEOUT is unset: an idle executor stays"
  placeholders = {
    scheduler          = var.scheduler
    token              = var.token
    database           = var.database
    bucket             = var.bucket
    drain_timeout      = var.drain_timeout
    idle_timeout       = var.idle_timeout == null ? local.stays : "SPOOL_IDLE_TIMEOUT=${var.idle_timeout}"
    scratch            = var.scratch > 0 ? "volume" : "root"
    api_listen         = local.open ? "0.0.0.0:8080" : "127.0.0.1:8080"
    api_auth           = local.open ? "keys" : "none"
    scheduler_units    = var.api == "none" ? "spool-scheduler" : "spool-scheduler, spool-api"
    s3_endpoint        = var.s3_endpoint
    s3_region          = var.s3_region
    s3_access          = var.s3_access
    s3_secret          = var.s3_secret
    binary_url         = var.binary_url
    binary_sha256      = var.binary_sha256
    scheduler_unit     = filebase64("${local.folder}/systemd/spool-scheduler.service")
    api_unit           = filebase64("${local.folder}/systemd/spool-api.service")
    executor_unit      = filebase64("${local.folder}/systemd/spool-executor.service")
    make_scratch       = filebase64("${local.folder}/cloud-init/files/make-scratch")
    fetch_spool        = filebase64("${local.folder}/cloud-init/files/fetch-spool")
    set_up             = filebase64("${local.folder}/cloud-init/files/set-up")
    spool_here         = filebase64("${local.folder}/cloud-init/files/spool-here")
    off_when_idle      = filebase64("${local.folder}/cloud-init/files/off-when-idle")
    off_when_idle_conf = filebase64("${local.folder}/cloud-init/files/off-when-idle.conf")
  }
}
