# --- Functions of all jobs ---

# Writes a line to the job's log, with the time and the node.
log() {
    printf '%s %s: %s\n' "$(date +%T)" "$node" "$*" >&2
}

# Ends the job with one of Spool's exit codes: 1 failed, 2 usage, 3 not found, 4 not allowed, 5 cluster
# unreachable.
die() {
    local code=$1
    shift
    log "error: $*"
    exit "$code"
}

# Returns whether the process $1 runs.
running() {
    kill -0 "$1" 2>/dev/null
}

# Waits a second. A signal that the job traps ends the wait early.
pause() {
    sleep 1 9>&- &
    wait $!
}

# Waits until the process $1 has exited, for at most $2 seconds. Fails if it still runs.
await() {
    local end=$((SECONDS + $2))
    while running "$1" && ((SECONDS < end)); do
        pause
    done
    ! running "$1"
}

# Ends the process $1 with SIGTERM, and with SIGKILL if it still runs after $2 seconds. Sets $status to its
# exit code.
stop() {
    kill -TERM "$1" 2>/dev/null
    if ! await "$1" "$2"; then
        log "process $1 did not exit within $2 s and is killed"
        kill -KILL "$1" 2>/dev/null
    fi
    wait "$1" 2>/dev/null
    status=$?
}

# Determines why this job got SIGTERM. Sets $requeueable if the job is about to reach its time limit, or if
# the site gives notice before a preemption, and $seconds to the time that executors have to drain. In all
# other cases Slurm ends the job, and SIGKILL follows after KillWait.
classify_sigterm() {
    local state wait
    requeueable=
    # The executor cancels its rows by itself before that.
    seconds=$((drain_timeout + 5))
    state=$(squeue --noheader --jobs "$job" --format %T 2>/dev/null)
    if [[ $state == RUNNING || $state == SIGNALING ]]; then
        requeueable=yes
        return
    fi
    wait=$(scontrol show config 2>/dev/null | sed -n 's/^KillWait *= *\([0-9]*\).*/\1/p')
    # The last third is for the rest of the job's shutdown.
    wait=$((${wait:-30} * 2 / 3))
    ((wait > seconds)) || seconds=$wait
}

# Requeues this job, at most $requeues times.
requeue() {
    local before=${SLURM_RESTART_COUNT:-0}
    if ((before >= requeues)); then
        log "the job is not requeued: it was requeued $before times, of at most $requeues"
        return
    fi
    log "the job is requeued ($((before + 1)) of at most $requeues times)"
    scontrol requeue "$job" || log "error: Slurm refuses to requeue the job"
}

# Checks that there is time to run before SIGTERM. Slurm may send it up to a minute early.
check_time() {
    local left days=0 total=0 part parts
    left=$(squeue --noheader --jobs "$job" --format %L 2>/dev/null)
    if [[ $left == *-* ]]; then
        days=${left%%-*}
        left=${left#*-}
    fi
    # The job has no time limit, or squeue does not respond.
    [[ $left =~ ^[0-9:]+$ ]] || return
    IFS=: read -ra parts <<<"$left"
    for part in "${parts[@]}"; do
        total=$((total * 60 + 10#$part))
    done
    total=$((total + days * 86400))
    ((total > lead + 60)) ||
        die 2 "the job may run for $total s, and SIGTERM may come $((lead + 60)) s before that:" \
            "give it more --time, or less --lead"
}

# Checks that the program exists and runs on this node.
check_program() {
    local output
    command -v "$spool" >/dev/null ||
        die 3 "$spool not found on this node: put it where all nodes see it, or load its module"
    output=$("$spool" --version 2>&1) || die 1 "$spool does not run on this node: $output"
}

# Creates a folder for intermediate files of this process, in the job's own temporary folder if there is one.
# It is locked, so that folders of killed jobs can be recognized, and are removed. Sets $scratch.
make_scratch() {
    local base=${SLURM_TMPDIR:-${TMPDIR:-/tmp}} old
    [[ -d $base && -w $base ]] ||
        die 4 "cannot write into $base on this node: set TMPDIR to a folder for temporary files"
    for old in "$base/spool-$UID-"*/; do
        [[ -O $old ]] && flock --nonblock "$old" rm -rf "$old"
    done
    scratch=$(mktemp -d "$base/.spool-XXXXXXXX") || die 4 "cannot create a folder in $base"
    exec 9<"$scratch"
    flock 9
    mv -T "$scratch" "$base/spool-$UID-$SLURM_JOB_ID-$1" || die 4 "cannot create a folder in $base"
    scratch=$base/spool-$UID-$SLURM_JOB_ID-$1
    trap 'rm -rf "$scratch"' EXIT
    export SPOOL_SCRATCH=$scratch
}
