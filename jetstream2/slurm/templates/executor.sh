# --- How an executor is started ---

# Can this node transcode?
check_node() {
    local found
    found=$("$spool" doctor 2>&1 9>&-) || die 1 "this node cannot transcode (is a module for FFmpeg to be loaded?):"$'\n'"$found"
}

# Sets $slots to the encodes that fit into the CPUs which Slurm gave to the task.
count_slots() {
    local cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
    slots=$((cpus / threads))
    ((slots > 0)) || die 2 "an encode with $threads threads does not fit into the CPUs of a task, which are $cpus"
}

# Starts an executor for the scheduler at $address. Sets $executor to its process.
start_executor() {
    # SIGUSR1 is for this script; its default would end the executor and its FFmpegs.
    (
        trap '' USR1
        exec "$spool" executor --scheduler "$address" --slots "$slots" --threads "$threads" --drain-timeout "$drain_timeout" 9>&-
    ) &
    executor=$!
}
