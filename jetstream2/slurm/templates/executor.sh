# --- Functions that start an executor ---

# Checks that this node can transcode.
check_node() {
    local output
    output=$("$spool" doctor 2>&1 9>&-) ||
        die 1 "this node cannot transcode (is a module for FFmpeg missing?):"$'\n'"$output"
}

# Sets $slots to the number of encodes that fit into the task's CPUs.
count_slots() {
    local cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
    slots=$((cpus / threads))
    ((slots > 0)) || die 2 "an encode with $threads threads needs more CPUs than the task has ($cpus)"
}

# Starts an executor for the scheduler at $address. Sets $executor to its process.
start_executor() {
    # SIGUSR1 is for this script; its default action would end the executor and its FFmpeg processes.
    (
        trap '' USR1
        exec "$spool" executor --scheduler "$address" --slots "$slots" --threads "$threads" \
            --drain-timeout "$drain_timeout" 9>&-
    ) &
    executor=$!
}
