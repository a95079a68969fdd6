# --- Functions that start a scheduler ---

# Determines the address of this node: that of $interface if it is set, else the one that Slurm uses. Sets
# $ip.
find_ip() {
    local name=$HOSTNAME
    if [[ -n $interface ]]; then
        ip=$(ip -4 -oneline address show dev "$interface" 2>/dev/null |
            sed -n '1s|.* inet \([0-9.]*\)/.*|\1|p')
        [[ -n $ip ]] || die 2 "no interface $interface with an IPv4 address on this node"
        return
    fi
    name=$(scontrol --oneliner show node "$node" 2>/dev/null | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
    ip=$(getent ahostsv4 "${name:-$HOSTNAME}" | sed -n '1s/ .*//p')
    [[ -n $ip ]] || die 1 "${name:-$HOSTNAME} has no address: set --interface to the network interface"
}

# Prints a new random token, by which the scheduler authenticates executors and clients.
new_token() {
    head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'
}

# Starts a scheduler that listens on port $1 of this node. Sets $scheduler to its process, and $address.
start_scheduler() {
    local end=$((SECONDS + wait_s)) port=$1
    find_ip
    : >"$scratch/listening"
    "$spool" scheduler --listen "$ip:$port" --insecure --no-executor-timeout "$wait_s" >"$scratch/listening" 9>&- &
    scheduler=$!
    while true; do
        address=$(sed -n 's/^listening on //p' "$scratch/listening")
        [[ -z $address ]] || return
        [[ -z $terminated ]] || exit 130
        running "$scheduler" || die 1 "the scheduler did not start"
        ((SECONDS < end)) || die 1 "the scheduler did not start within $wait_s s"
        pause
    done
}
