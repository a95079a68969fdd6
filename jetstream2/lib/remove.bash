# shellcheck shell=bash disable=SC2034,SC2154 # the files of lib/ share their variables
# Removes executors, and deletes a cluster. Running rows may finish first, and leftovers are listed.

# Drains the executors with the given numbers, all at once: they take no more rows and finish the running
# ones.
drain() {
    local number line pids=() failed=0 login=${setting[ssh-user]} folder through
    local common=(-o BatchMode=yes -o ConnectTimeout=20)
    folder=$(state_folder)
    mkdir -p "$folder"
    # The scheduler's host key is pinned on first use. Executors are replaced often and reuse addresses, so
    # their host keys are not checked.
    through="ssh ${common[*]} -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=$folder/known_hosts"
    through+=" -W %h:%p $login@$(public_address)"
    for number in "$@"; do
        line=$(server_line "$cluster-executor-$number")
        [[ $line == *" ACTIVE "* ]] || continue
        log "draining $cluster-executor-$number, for at most $((setting[drain-timeout])) seconds"
        # systemd sends SIGTERM to the executor, and waits for it to exit.
        timeout $((setting[drain-timeout] + 90)) ssh "${common[@]}" -o StrictHostKeyChecking=no \
            -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o "ProxyCommand=$through" \
            "$login@$(address_of "$line")" sudo systemctl stop spool-executor.service </dev/null &
        pids+=("$!")
    done
    for line in "${pids[@]}"; do wait "$line" || failed=$((failed + 1)); done
    ((failed == 0)) ||
        log "$failed of ${#pids[@]} could not be reached by SSH: their running rows run again elsewhere"
    return "$failed"
}

# Loads settings and inventory of an existing cluster. Fails if the cluster does not exist.
known_cluster() {
    load_state || true
    inventory
    [ -n "$network" ] || [ ${#servers[@]} -gt 0 ] || die 3 "no cluster $cluster: spool-cluster up creates one"
}

# Prints the numbers of $1 executors to remove: first those that are off, then the most recent.
surplus() {
    local off on
    off=$(executor_numbers SHUTOFF)
    on=$(comm -23 <(executor_numbers | sort) <(executor_numbers SHUTOFF | sort) | sort -rn)
    printf '%s\n%s\n' "$off" "$on" | grep . | head -n "$1" || true
}

check_number() {
    if ! is_number "$1" || (($1 > 200)); then die 2 "$1: must be a number of executors from 0 to 200"; fi
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
            die 3 "the settings of $cluster are not in $(state_folder):" \
                "run this where the cluster was created, or copy that folder"
        setting[executors]=$1
        check_cloud
        estimate >&2
        confirm "create $(($1 - have)) more executors"
        trap report_interrupted EXIT
        make_executors "$1"
        trap - EXIT
    fi
    log "$cluster has $1 executors"
}

drain_to() {
    local have going=()
    check_number "$1"
    known_cluster
    have=$(executor_numbers | wc -l)
    ((have > $1)) || return 0
    # `tofu apply` deletes the highest numbers, in any state.
    into going < <(executor_numbers | tail -n +"$(($1 + 1))")
    drain "${going[@]}"
}

reap() {
    local off=()
    known_cluster
    into off < <(executor_numbers SHUTOFF)
    delete_executors "${off[@]}"
    log "deleted ${#off[@]} executors that were off"
}

# Deletes the executors with the given numbers, and their volumes.
delete_executors() {
    local number ids=() line
    (($#)) || return 0
    for number in "$@"; do ids+=("$(first_id "$(server_line "$cluster-executor-$number")")"); done
    os server delete --wait "${ids[@]}"
    # Nova deletes an attached volume with its instance, but keeps one that was never attached.
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
    printf '%s\n' "public address: $(public_address)" "bucket: ${setting[bucket]} ($bucket_owner)"
    [ -z "$(executor_numbers SHUTOFF)" ] ||
        log "instances that are off cost half: spool-cluster reap deletes them"
    printf 'connected executors: ssh %s@%s curl -s http://%s:50050/readyz\n' \
        "${setting[ssh-user]}" "$(public_address)" "$(scheduler_address)"
}

down() {
    local line ids=() router subnet what
    load_state || true
    inventory
    if [ -z "$network$s3_access" ] && [ "$bucket_owner" != ours ] &&
        ((${#servers[@]} + ${#volumes[@]} + ${#groups[@]} + ${#routers[@]} + ${#addresses[@]} == 0)); then
        log "no resources of a cluster $cluster exist"
        rm -rf "$(state_folder)"
        return
    fi
    what="${#servers[@]} servers"
    [ "${setting[delete-bucket]}" = no ] || what+=", and the bucket ${setting[bucket]} with all objects"
    confirm "delete the cluster $cluster: $what"
    into ids < <(executor_numbers ACTIVE)
    if [ ${#ids[@]} -gt 0 ] && [ "${setting[no-drain]}" = no ]; then drain "${ids[@]}" || true; fi
    # Each of the following steps runs even if the one before failed; `leftovers` lists what remains.
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
    # The network last, because its tags record other resources.
    [ -z "$network" ] || os network delete "$network" || true
    leftovers
    rm -rf "$(state_folder)"
}

delete_keys_and_bucket() {
    if [ -n "$s3_access" ] && exists ec2 credentials show "$s3_access" -f value -c access; then
        os ec2 credentials delete "$s3_access"
    fi
    if [ "$bucket_owner" = ours ] && [ "${setting[delete-bucket]}" = yes ]; then
        os container delete --recursive "${setting[bucket]}"
    fi
}

# Lists the resources that are left, by mark and by name. Fails if there are any, except a bucket that is
# kept.
leftovers() {
    local lines count=0 keys=() line
    load_state || true
    inventory
    print_left() {
        printf '%-16s %s\n' "$1" "$2"
        count=$((count + 1))
    }
    for line in "${servers[@]}"; do print_left server "$line"; done
    for line in "${volumes[@]}"; do print_left volume "$line"; done
    for line in "${addresses[@]}"; do print_left 'floating address' "$line"; done
    for line in "${ports[@]}"; do print_left port "$line"; done
    for line in "${routers[@]}"; do print_left router "$line"; done
    for line in "${subnets[@]}"; do print_left subnet "$line"; done
    for line in "${groups[@]}"; do print_left 'security group' "$line"; done
    [ -z "$network" ] || print_left network "$network"
    lines=$(os ec2 credentials list -f value -c Access)
    into keys <<<"$lines"
    for line in "${keys[@]}"; do [ "$line" != "$s3_access" ] || print_left 'EC2 credentials' "$line"; done
    if [ "$bucket_owner" = ours ]; then
        printf '%-16s %s\n' bucket \
            "${setting[bucket]}, kept with its objects: spool-cluster down --delete-bucket --name $cluster"
    fi
    [ ${#keys[@]} -eq 0 ] ||
        log "you have ${#keys[@]} EC2 credentials in this project: openstack ec2 credentials list"
    ((count == 0)) ||
        die 1 "$count resources are left of the cluster $cluster:" \
            "run \`spool-cluster down --name $cluster\` again"
    log "no resources of the cluster $cluster that cost service units are left"
}
