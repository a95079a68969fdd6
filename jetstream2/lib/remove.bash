# shellcheck shell=bash disable=SC2034,SC2154 # the files of lib/ know each other's names
# How is a cluster shrunk, and taken down? Rows in hand are let finish, and what is left is said.

# Has executors finish what they have in hand and take no more: numbers. All at a time; the slowest may take its grace.
drain() {
    local number line pids=() failed=0 login=${setting[ssh-user]} folder through common=(-o BatchMode=yes -o ConnectTimeout=20)
    folder=$(state_folder)
    mkdir -p "$folder"
    # The scheduler is known by the key that it showed first. Executors come and go, with addresses that others had.
    through="ssh ${common[*]} -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=$folder/known_hosts -W %h:%p"
    through+=" $login@$(public_address)"
    for number in "$@"; do
        line=$(server_line "$cluster-executor-$number")
        [[ $line == *" ACTIVE "* ]] || continue
        say "draining $cluster-executor-$number, for $((setting[drain-timeout])) seconds at most"
        # The executor gets SIGTERM, and systemd waits for it.
        timeout $((setting[drain-timeout] + 90)) ssh "${common[@]}" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
            -o LogLevel=ERROR -o "ProxyCommand=$through" "$login@$(address_of "$line")" \
            sudo systemctl stop spool-executor.service </dev/null &
        pids+=("$!")
    done
    for line in "${pids[@]}"; do wait "$line" || failed=$((failed + 1)); done
    ((failed == 0)) || say "$failed of ${#pids[@]} could not be reached by SSH: rows that they have in hand run again elsewhere"
    return "$failed"
}

# Settings of a cluster that is there, for commands that change it.
known_cluster() {
    load_state || true
    inventory
    [ -n "$network" ] || [ ${#servers[@]} -gt 0 ] || die 3 "there is no cluster $cluster: spool-cluster up makes one"
}

# The executors after the Nth, in the order in which they go: those that are off, then the youngest.
surplus() {
    local off on
    off=$(executor_numbers SHUTOFF) on=$(comm -23 <(executor_numbers | sort) <(executor_numbers SHUTOFF | sort) | sort -rn)
    printf '%s\n%s\n' "$off" "$on" | grep . | head -n "$1" || true
}

check_number() {
    if ! is_number "$1" || (($1 > 200)); then die 2 "$1: a number of executors from 0 to 200 is wanted"; fi
}

scale() {
    local have going=()
    check_number "$1"
    known_cluster
    have=$(executor_numbers | wc -l)
    if ((have > $1)); then
        into going < <(surplus $((have - $1)))
        [ "${setting[no-drain]}" = yes ] || drain "${going[@]}" || true
        delete_executors "${going[@]}"
    elif ((have < $1)); then
        [ -n "$token" ] ||
            die 3 "the settings of $cluster are not in $(state_folder): run this where the cluster was made, or copy that folder"
        setting[executors]=$1
        check_cloud
        estimate >&2
        confirm "make $(($1 - have)) more executors"
        trap half_made EXIT
        make_executors "$1"
        trap - EXIT
    fi
    say "$cluster has $1 executors"
}

drain_to() {
    local have going=()
    check_number "$1"
    known_cluster
    have=$(executor_numbers | wc -l)
    ((have > $1)) || return 0
    # What `tofu apply` deletes: the highest numbers, whatever their state.
    into going < <(executor_numbers | tail -n +"$(($1 + 1))")
    drain "${going[@]}"
}

reap() {
    local off=()
    known_cluster
    into off < <(executor_numbers SHUTOFF)
    delete_executors "${off[@]}"
    say "${#off[@]} executors were off, and are deleted"
}

# Deletes executors by their numbers, and their volumes.
delete_executors() {
    local number ids=() line
    (($#)) || return 0
    for number in "$@"; do ids+=("$(first_id "$(server_line "$cluster-executor-$number")")"); done
    os server delete --wait "${ids[@]}"
    # Nova deletes a volume with its instance; one that was never attached it leaves.
    for line in "${volumes[@]}"; do
        for number in "$@"; do
            [[ $line != *" $cluster-scratch-$number "* ]] || delete_volume "$(first_id "$line")"
        done
    done
}

delete_volume() {
    if exists volume show "$1" -f value -c id; then os volume delete "$1" || true; fi
}

status() {
    local line fields
    known_cluster
    printf '%-24s %-10s %s\n' server state address
    for line in "${servers[@]}"; do
        read -ra fields <<<"$line"
        printf '%-24s %-10s %s\n' "${fields[1]}" "${fields[2]}" "$(address_of "$line")"
    done | sort -V
    printf '%s\n' "public address: $(public_address)" "bucket: ${setting[bucket]} ($bucket_is)"
    [ -z "$(executor_numbers SHUTOFF)" ] || say "instances that are off cost half: spool-cluster reap deletes them"
    printf 'who works: ssh %s@%s curl -s http://%s:50050/readyz\n' "${setting[ssh-user]}" "$(public_address)" "$(scheduler_address)"
}

down() {
    local line ids=() router subnet what
    load_state || true
    inventory
    if [ -z "$network$s3_access" ] && [ "$bucket_is" != ours ] &&
        ((${#servers[@]} + ${#volumes[@]} + ${#groups[@]} + ${#routers[@]} + ${#addresses[@]} == 0)); then
        say "there is nothing of a cluster $cluster"
        rm -rf "$(state_folder)"
        return
    fi
    what="${#servers[@]} servers"
    [ "${setting[delete-bucket]}" = no ] || what+=", and the bucket ${setting[bucket]} with all that is in it"
    confirm "take the cluster $cluster down: $what"
    into ids < <(executor_numbers ACTIVE)
    if [ ${#ids[@]} -gt 0 ] && [ "${setting[no-drain]}" = no ]; then drain "${ids[@]}" || true; fi
    # From here on each step is tried, whatever became of the one before: `leftovers` tells what stayed.
    ids=()
    for line in "${servers[@]}"; do ids+=("$(first_id "$line")"); done
    [ ${#ids[@]} -eq 0 ] || os server delete --wait "${ids[@]}" || true
    for line in "${addresses[@]}"; do os floating ip delete "$(first_id "$line")" || true; done
    for line in "${ports[@]}"; do os port delete "$(first_id "$line")" || true; done
    for line in "${volumes[@]}"; do delete_volume "$(first_id "$line")"; done
    for router in "${routers[@]}"; do
        for subnet in "${subnets[@]}"; do
            openstack router remove subnet "$(first_id "$router")" "$(first_id "$subnet")" 2>/dev/null || true
        done
        os router delete "$(first_id "$router")" || true
    done
    for line in "${subnets[@]}"; do os subnet delete "$(first_id "$line")" || true; done
    for line in "${groups[@]}"; do os security group delete "$(first_id "$line")" || true; done
    delete_keys_and_bucket || true
    # The network last: its tags tell what else there is.
    [ -z "$network" ] || os network delete "$network" || true
    leftovers
    rm -rf "$(state_folder)"
}

delete_keys_and_bucket() {
    if [ -n "$s3_access" ] && exists ec2 credentials show "$s3_access" -f value -c access; then
        os ec2 credentials delete "$s3_access"
    fi
    if [ "$bucket_is" = ours ] && [ "${setting[delete-bucket]}" = yes ]; then
        os container delete --recursive "${setting[bucket]}"
    fi
}

# Lists what is left, by mark and by name. Fails if there is any, but for a bucket that was to be kept.
leftovers() {
    local lines count=0 keys=() line
    load_state || true
    inventory
    left() {
        printf '%-16s %s\n' "$1" "$2"
        count=$((count + 1))
    }
    for line in "${servers[@]}"; do left server "$line"; done
    for line in "${volumes[@]}"; do left volume "$line"; done
    for line in "${addresses[@]}"; do left 'floating address' "$line"; done
    for line in "${ports[@]}"; do left port "$line"; done
    for line in "${routers[@]}"; do left router "$line"; done
    for line in "${subnets[@]}"; do left subnet "$line"; done
    for line in "${groups[@]}"; do left 'security group' "$line"; done
    [ -z "$network" ] || left network "$network"
    lines=$(os ec2 credentials list -f value -c Access)
    into keys <<<"$lines"
    for line in "${keys[@]}"; do [ "$line" != "$s3_access" ] || left 'EC2 credentials' "$line"; done
    if [ "$bucket_is" = ours ]; then
        printf '%-16s %s\n' bucket \
            "${setting[bucket]}, kept with what is in it: spool-cluster down --delete-bucket --name $cluster"
    fi
    [ ${#keys[@]} -eq 0 ] || say "${#keys[@]} EC2 credentials of yours are in this project in all: openstack ec2 credentials list"
    ((count == 0)) ||
        die 1 "$count things are left of the cluster $cluster: run \`spool-cluster down --name $cluster\` again"
    say "nothing is left of the cluster $cluster that costs service units"
}
