output "scheduler" {
  description = "User data of the scheduler."
  value       = templatefile("${local.folder}/cloud-init/scheduler.yaml", local.placeholders)
  sensitive   = true
}

output "executor" {
  description = "User data of the executors."
  value       = templatefile("${local.folder}/cloud-init/executor.yaml", local.placeholders)
  sensitive   = true
}
