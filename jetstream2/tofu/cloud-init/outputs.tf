output "scheduler" {
  description = "User data of the scheduler."
  value       = templatefile("${local.folder}/cloud-init/scheduler.yaml", local.blank)
  sensitive   = true
}

output "executor" {
  description = "User data of executors."
  value       = templatefile("${local.folder}/cloud-init/executor.yaml", local.blank)
  sensitive   = true
}
