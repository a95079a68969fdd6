# shellcheck shell=bash disable=SC2034,SC2154 # the files of lib/ share their variables
# Creates a cluster, or adds executors. Each step creates only what is missing.

# Limit of the time in which servers must become active, and the interval between polls.
BUILD_TIMEOUT_SECONDS=${SPOOL_CLUSTER_BUILD_SECONDS:-900}
POLL_SECONDS=${SPOOL_CLUSTER_POLL_SECONDS:-5}

up() {
    check_all
    estimate >&2
    confirm "create the cluster $cluster"
    trap report_interrupted EXIT
    # Saved before it is used, so that an interrupted run keeps its token.
    [ -n "$token" ] || token=$(od -An -N 24 -tx1 /dev/urandom | tr -d ' \n')
    save_state
    make_network
    make_groups
    make_bucket
    make_scheduler
    make_executors "${setting[executors]}"
    trap - EXIT
    log "the cluster $cluster is created; its instances take some more minutes to install FFmpeg and Spool"
    print_next_steps
}

report_interrupted() {
    log "the cluster is incomplete: the same command continues," \
        "\`spool-cluster down --name $cluster\` deletes what exists"
}

print_next_steps() {
    local login
    login="${setting[ssh-user]}@$(public_address)"
    printf 'ssh %s sudo spool-here transcode s3://%s/uploads/talk.mp4 -o s3://%s/media/talk/\n' \
        "$login" "${setting[bucket]}" "${setting[bucket]}"
    case ${setting[api]} in
        none) ;;
        local) printf 'ssh -N -L 8080:127.0.0.1:8080 %s    # then open http://127.0.0.1:8080/\n' "$login" ;;
        *)
            printf 'http://%s:8080/ needs an API key: ssh %s sudo spool-here keys create --tenant NAME\n' \
                "$(public_address)" "$login"
            ;;
    esac
    printf 'spool-cluster scale 8 --name %s\nspool-cluster down --name %s\n' "$cluster" "$cluster"
}

make_network() {
    local subnet router gateway
    if [ -z "$network" ]; then
        network=$(os network create "$cluster-network" --tag "$(mark)" \
            --tag "spool-bucket=${setting[bucket]}" -f value -c id)
    fi
    if [ ${#subnets[@]} -eq 0 ]; then
        subnet=$(os subnet create "$cluster-subnet" --network "$network" \
            --subnet-range "${setting[network-cidr]}" --tag "$(mark)" -f value -c id)
        subnets=("$subnet")
    fi
    subnet=$(first_id "${subnets[0]}")
    if [ ${#routers[@]} -eq 0 ]; then
        router=$(os router create "$cluster-router" --tag "$(mark)" -f value -c id)
        routers=("$router")
    fi
    router=$(first_id "${routers[0]}")
    gateway=$(os router show "$router" -f json -c external_gateway_info -c interfaces_info)
    [[ $gateway == *network_id* ]] ||
        os router set --external-gateway "${setting[external-network]}" "$router"
    [[ $gateway == *"$subnet"* ]] || os router add subnet "$router" "$subnet"
}

# Prints the range that a rule of rules.csv allows, or nothing if the rule is not enabled.
range_of() {
    case $1 in
        ssh) printf '%s' "${setting[ssh-from]}" ;;
        api) case ${setting[api]} in none | local) ;; *) printf '%s' "${setting[api]}" ;; esac ;;
        private) printf '%s' "${setting[network-cidr]}" ;;
    esac
}

make_groups() {
    local group id line there protocol first last from range
    for group in scheduler executor; do
        id=''
        for line in "${groups[@]}"; do [[ $line != *" $cluster-$group" ]] || id=$(first_id "$line"); done
        if [ -z "$id" ]; then
            id=$(os security group create "$cluster-$group" --tag "$(mark)" -f value -c id)
            groups+=("$id $cluster-$group")
        fi
        there=$(os security group rule list "$id" --ingress -f value \
            -c 'IP Protocol' -c 'IP Range' -c 'Port Range')
        while IFS=, read -r _ protocol first last from _; do
            range=$(range_of "$from")
            if [ -n "$range" ] && ! grep -qxF "$protocol $range $first:$last" <<<"$there"; then
                os security group rule create "$id" --ingress --protocol "$protocol" \
                    --dst-port "$first:$last" --remote-ip "$range" >/dev/null
            fi
        done < <(grep "^$group," "$root/rules.csv")
    done
}

make_bucket() {
    local keys name there
    if [ "$bucket_owner" = none ]; then
        os container create "${setting[bucket]}" >/dev/null
        os container set "${setting[bucket]}" --property "$(mark)"
        bucket_owner=ours
    fi
    if [[ $network_tags != *spool-ec2=* ]]; then
        keys=$(os ec2 credentials create -f json)
        s3_access=$(json_string access "$keys") s3_secret=$(json_string secret "$keys")
        # `down` finds the keys by this tag.
        os network set "$network" --tag "spool-ec2=$s3_access"
    elif [ -z "$s3_secret" ]; then
        s3_secret=$(os ec2 credentials show "$s3_access" -f value -c secret)
    fi
    if [ -n "${setting[binary]}" ]; then
        name=bin/spool-${setting[binary-sha256]}
        setting[binary-url]=${setting[s3-endpoint]}/${setting[bucket]}/$name
        there=$(os object list "${setting[bucket]}" --prefix "$name" -f value)
        [ -n "$there" ] ||
            os object create "${setting[bucket]}" "${setting[binary]}" --name "$name" >/dev/null
    fi
    save_state
}

# Prints a string field of a JSON object. The string must not contain escapes.
json_string() { sed -nE "s/.*\"$1\": \"([^\"]*)\".*/\1/p" <<<"$2"; }

group_id() {
    local line
    for line in "${groups[@]}"; do [[ $line != *" $cluster-$1" ]] || first_id "$line"; done
}

make_scheduler() {
    local port address data
    if [ ${#ports[@]} -eq 0 ]; then
        port=$(os port create "$cluster-scheduler" --network "$network" --tag "$(mark)" \
            --security-group "$(group_id scheduler)" \
            --fixed-ip "subnet=$(first_id "${subnets[0]}"),ip-address=$(scheduler_address)" -f value -c id)
        ports=("$port")
    fi
    port=$(first_id "${ports[0]}")
    if [ ${#addresses[@]} -eq 0 ]; then
        address=$(os floating ip create "${setting[external-network]}" --port "$port" --tag "$(mark)" -f json)
        addresses=("$(json_string id "$address") $(json_string floating_ip_address "$address")")
    fi
    delete_broken
    [ -z "$(server_line "$cluster-scheduler")" ] || return 0
    data=$(state_folder)/scheduler.yaml
    render scheduler "$data"
    os server create "$cluster-scheduler" --flavor "${setting[scheduler-flavor]}" \
        --image "${setting[image]}" --key-name "${setting[key]}" --port "$port" --user-data "$data" \
        --property "$(mark)" --property spool-role=scheduler -f value -c id >/dev/null
    rm -f "$data"
}

# Deletes servers that could not be built, so that they are created again.
delete_broken() {
    local line fields whole=()
    for line in "${servers[@]}"; do
        read -ra fields <<<"$line"
        if [ "${fields[2]}" = ERROR ]; then
            log "${fields[1]} is in the state ERROR and is created again"
            os server delete --wait "${fields[0]}"
        else
            whole+=("$line")
        fi
    done
    servers=("${whole[@]}")
}

# Creates executors until there are $1.
make_executors() {
    local target=$1 number there data volume disk disks count
    delete_broken
    there=$(executor_numbers | paste -sd ' ')
    count=$(wc -w <<<"$there")
    data=$(state_folder)/executor.yaml
    ((count >= target)) || render executor "$data"
    for ((number = 1; count < target; number++)); do
        [[ " $there " != *" $number "* ]] || continue
        disks=()
        if ((setting[scratch] > 0)); then
            volume=$(make_volume "$number")
            disk="uuid=$volume,source_type=volume,destination_type=volume,boot_index=-1"
            disk+=",delete_on_termination=true"
            disks=(--block-device "$disk")
        fi
        os server create "$cluster-executor-$number" --flavor "${setting[flavor]}" \
            --image "${setting[image]}" --key-name "${setting[key]}" --network "$network" \
            --security-group "$(group_id executor)" --user-data "$data" \
            --property "$(mark)" --property spool-role=executor "${disks[@]}" -f value -c id >/dev/null
        count=$((count + 1))
    done
    rm -f "$data"
    wait_for_servers
}

# Prints the ID of an executor's scratch volume, which is created if it is missing.
make_volume() {
    local line id status
    for line in "${volumes[@]}"; do
        if [[ $line == *" $cluster-scratch-$1 "* ]]; then
            first_id "$line"
            return
        fi
    done
    id=$(os volume create "$cluster-scratch-$1" --size "${setting[scratch]}" --property "$(mark)" \
        -f value -c id)
    for ((; ; )); do
        status=$(os volume show "$id" -f value -c status)
        case $status in
            available) break ;;
            error*) die 1 "the volume $cluster-scratch-$1 is in the state $status" ;;
        esac
        sleep "$POLL_SECONDS"
    done
    printf '%s' "$id"
}

# Waits until no server is being built. Fails if a server is in the state ERROR.
wait_for_servers() {
    local states name state deadline=$((SECONDS + BUILD_TIMEOUT_SECONDS)) building
    for ((; ; )); do
        building='' states=$(os server list --no-name-lookup --name "^$cluster-" -f value -c Name -c Status)
        while read -r name state; do
            case $state in
                BUILD) building+=" $name" ;;
                ERROR)
                    log "$name could not be built: $(openstack server show "$name" -f value -c fault)"
                    return 1
                    ;;
            esac
        done <<<"$states"
        [ -n "$building" ] || return 0
        if ((SECONDS > deadline)); then
            log "not built after $BUILD_TIMEOUT_SECONDS seconds:$building"
            return 1
        fi
        sleep "$POLL_SECONDS"
    done
}
