# --- What the jobs of Spool have in common ---

# Into the job's log, with the time and the node.
say() {
    printf '%s %s: %s\n' "$(date +%T)" "$node" "$*" >&2
}

# Ends the job with one of Spool's exit codes: 1 failed, 2 usage, 3 not found, 4 not allowed, 5 cluster unreachable.
die() {
    local code=$1
    shift
    say "error: $*"
    exit "$code"
}

running() {
    kill -0 "$1" 2>/dev/null
}

# Waits a second. A signal that the job traps ends it early.
pause() {
    sleep 1 9>&- &
    wait $!
}

# Waits until a process is gone, or so many seconds.
await() {
    local end=$((SECONDS + $2))
    while running "$1" && ((SECONDS < end)); do
        pause
    done
    ! running "$1"
}

# Ends a process: it is told, and killed if it is not gone after so many seconds. Sets $status to its exit code.
stop() {
    kill -TERM "$1" 2>/dev/null
    if ! await "$1" "$2"; then
        say "process $1 is not gone after $2 s and is killed"
        kill -KILL "$1" 2>/dev/null
    fi
    wait "$1" 2>/dev/null
    status=$?
}

# Why did this job get SIGTERM? Sets $time_limit where it is about to reach its limit, or where a site gives notice before it
# preempts, and $seconds to how long executors may take to leave. In all other cases Slurm ends the job, and SIGKILL follows after
# KillWait.
ask_why() {
    local state wait
    time_limit=
    # It gives up by itself before.
    seconds=$((drain_timeout + 5))
    state=$(squeue --noheader --jobs "$job" --format %T 2>/dev/null)
    if [[ $state == RUNNING || $state == SIGNALING ]]; then
        time_limit=yes
        return
    fi
    wait=$(scontrol show config 2>/dev/null | sed -n 's/^KillWait *= *\([0-9]*\).*/\1/p')
    # The rest is for what is left to do then.
    wait=$((${wait:-30} * 2 / 3))
    ((wait > seconds)) || seconds=$wait
}

# Puts this job back into the queue, some times at most.
come_back() {
    local before=${SLURM_RESTART_COUNT:-0}
    if ((before >= requeues)); then
        say "the job does not go back into the queue: it did $before times, of at most $requeues"
        return
    fi
    say "the job goes back into the queue ($((before + 1)) of at most $requeues times)"
    scontrol requeue "$job" || say "error: Slurm does not take it back"
}

# Is there time to do something before SIGTERM comes? Slurm may send it up to a minute early.
check_time() {
    local left days=0 total=0 part parts
    left=$(squeue --noheader --jobs "$job" --format %L 2>/dev/null)
    if [[ $left == *-* ]]; then
        days=${left%%-*}
        left=${left#*-}
    fi
    # Where there is no limit, or squeue does not answer.
    [[ $left =~ ^[0-9:]+$ ]] || return
    IFS=: read -ra parts <<<"$left"
    for part in "${parts[@]}"; do
        total=$((total * 60 + 10#$part))
    done
    total=$((total + days * 86400))
    ((total > lead + 60)) ||
        die 2 "the job may run for $total s, and SIGTERM may come $((lead + 60)) s before that: give it more --time, or less --lead"
}

# Is the program there, and does it run here?
check_program() {
    local found
    command -v "$spool" >/dev/null || die 3 "there is no $spool on this node: put it where all nodes see it, or load its module"
    found=$("$spool" --version 2>&1) || die 1 "$spool does not run on this node: $found"
}

# A folder for intermediate files, for this process alone, in the job's own temporary folder where there is one. It is locked, so
# that those of jobs that were killed can be told from others, and go. Sets $scratch.
make_scratch() {
    local base=${SLURM_TMPDIR:-${TMPDIR:-/tmp}} old
    [[ -d $base && -w $base ]] || die 4 "cannot write into $base on this node: name a folder for temporary files in TMPDIR"
    for old in "$base/spool-$UID-"*/; do
        [[ -O $old ]] && flock --nonblock "$old" rm -rf "$old"
    done
    scratch=$(mktemp -d "$base/.spool-XXXXXXXX") || die 4 "cannot make a folder in $base"
    exec 9<"$scratch"
    flock 9
    mv -T "$scratch" "$base/spool-$UID-$SLURM_JOB_ID-$1" || die 4 "cannot make a folder in $base"
    scratch=$base/spool-$UID-$SLURM_JOB_ID-$1
    trap 'rm -rf "$scratch"' EXIT
    export SPOOL_SCRATCH=$scratch
}
