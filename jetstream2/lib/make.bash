# shellcheck shell=bash disable=SC2034,SC2154 # the files of lib/ know each other's names
# How is a cluster made, or grown? Each step makes what is not there yet.

# How long servers may take to run, and how often we look.
BUILD_MOST_SECONDS=${SPOOL_CLUSTER_BUILD_SECONDS:-900}
LOOK_EVERY_SECONDS=${SPOOL_CLUSTER_LOOK_SECONDS:-5}

up() {
    check_all
    estimate >&2
    confirm "make the cluster $cluster"
    trap half_made EXIT
    # Whom are we to trust? Kept before it is used.
    [ -n "$token" ] || token=$(od -An -N 24 -tx1 /dev/urandom | tr -d ' \n')
    save_state
    make_network
    make_groups
    make_bucket
    make_scheduler
    make_executors "${setting[executors]}"
    trap - EXIT
    say "the cluster $cluster is there; its instances take some minutes more to install FFmpeg and Spool"
    how_to_use
}

half_made() {
    say "the cluster is half made: the same command goes on, \`spool-cluster down --name $cluster\` takes down what there is"
}

how_to_use() {
    local login
    login="${setting[ssh-user]}@$(public_address)"
    printf 'ssh %s sudo spool-here transcode s3://%s/uploads/talk.mp4 -o s3://%s/media/talk/\n' \
        "$login" "${setting[bucket]}" "${setting[bucket]}"
    case ${setting[api]} in
        none) ;;
        local) printf 'ssh -N -L 8080:127.0.0.1:8080 %s    # and then http://127.0.0.1:8080/\n' "$login" ;;
        *)
            printf 'http://%s:8080/, for who has a key: ssh %s sudo spool-here keys create --tenant NAME\n' \
                "$(public_address)" "$login"
            ;;
    esac
    printf 'spool-cluster scale 8 --name %s\nspool-cluster down --name %s\n' "$cluster" "$cluster"
}

make_network() {
    local subnet router gateway
    if [ -z "$network" ]; then
        network=$(os network create "$cluster-network" --tag "$(mark)" --tag "spool-bucket=${setting[bucket]}" -f value -c id)
    fi
    if [ ${#subnets[@]} -eq 0 ]; then
        subnet=$(os subnet create "$cluster-subnet" --network "$network" --subnet-range "${setting[network-cidr]}" \
            --tag "$(mark)" -f value -c id)
        subnets=("$subnet")
    fi
    subnet=$(first_id "${subnets[0]}")
    if [ ${#routers[@]} -eq 0 ]; then
        router=$(os router create "$cluster-router" --tag "$(mark)" -f value -c id)
        routers=("$router")
    fi
    router=$(first_id "${routers[0]}")
    gateway=$(os router show "$router" -f json -c external_gateway_info -c interfaces_info)
    [[ $gateway == *network_id* ]] || os router set --external-gateway "${setting[external-network]}" "$router"
    [[ $gateway == *"$subnet"* ]] || os router add subnet "$router" "$subnet"
}

# From where a rule of rules.csv lets in; nothing where it is not wanted.
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
        there=$(os security group rule list "$id" --ingress -f value -c 'IP Protocol' -c 'IP Range' -c 'Port Range')
        while IFS=, read -r _ protocol first last from _; do
            range=$(range_of "$from")
            if [ -n "$range" ] && ! grep -qxF "$protocol $range $first:$last" <<<"$there"; then
                os security group rule create "$id" --ingress --protocol "$protocol" --dst-port "$first:$last" \
                    --remote-ip "$range" >/dev/null
            fi
        done < <(grep "^$group," "$root/rules.csv")
    done
}

make_bucket() {
    local keys name there
    if [ "$bucket_is" = none ]; then
        os container create "${setting[bucket]}" >/dev/null
        os container set "${setting[bucket]}" --property "$(mark)"
        bucket_is=ours
    fi
    if [[ $network_tags != *spool-ec2=* ]]; then
        keys=$(os ec2 credentials create -f json)
        s3_access=$(json_string access "$keys") s3_secret=$(json_string secret "$keys")
        # By this `down` finds them.
        os network set "$network" --tag "spool-ec2=$s3_access"
    elif [ -z "$s3_secret" ]; then
        s3_secret=$(os ec2 credentials show "$s3_access" -f value -c secret)
    fi
    if [ -n "${setting[binary]}" ]; then
        name=bin/spool-${setting[binary-sha256]}
        setting[binary-url]=${setting[s3-endpoint]}/${setting[bucket]}/$name
        there=$(os object list "${setting[bucket]}" --prefix "$name" -f value)
        [ -n "$there" ] || os object create "${setting[bucket]}" "${setting[binary]}" --name "$name" >/dev/null
    fi
    save_state
}

# A string of JSON that has no escapes in it.
json_string() { sed -nE "s/.*\"$1\": \"([^\"]*)\".*/\1/p" <<<"$2"; }

group_id() {
    local line
    for line in "${groups[@]}"; do [[ $line != *" $cluster-$1" ]] || first_id "$line"; done
}

make_scheduler() {
    local port address data
    if [ ${#ports[@]} -eq 0 ]; then
        port=$(os port create "$cluster-scheduler" --network "$network" --security-group "$(group_id scheduler)" \
            --tag "$(mark)" --fixed-ip "subnet=$(first_id "${subnets[0]}"),ip-address=$(scheduler_address)" -f value -c id)
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
    # As the user of this command may read it, and nobody else.
    os server create "$cluster-scheduler" --flavor "${setting[scheduler-flavor]}" --image "${setting[image]}" \
        --key-name "${setting[key]}" --port "$port" --user-data "$data" --property "$(mark)" \
        --property spool-role=scheduler -f value -c id >/dev/null
    rm -f "$data"
}

# Deletes servers that could not be built, so that they are made anew.
delete_broken() {
    local line fields whole=()
    for line in "${servers[@]}"; do
        read -ra fields <<<"$line"
        if [ "${fields[2]}" = ERROR ]; then
            say "${fields[1]} is in the state ERROR: made anew"
            os server delete --wait "${fields[0]}"
        else
            whole+=("$line")
        fi
    done
    servers=("${whole[@]}")
}

# Makes executors until there are so many.
make_executors() {
    local wanted=$1 number there data volume disk count
    delete_broken
    there=$(executor_numbers | paste -sd ' ')
    count=$(wc -w <<<"$there")
    data=$(state_folder)/executor.yaml
    ((count >= wanted)) || render executor "$data"
    for ((number = 1; count < wanted; number++)); do
        [[ " $there " != *" $number "* ]] || continue
        disk=()
        if ((setting[scratch] > 0)); then
            volume=$(make_volume "$number")
            disk=(--block-device "uuid=$volume,source_type=volume,destination_type=volume,boot_index=-1,delete_on_termination=true")
        fi
        os server create "$cluster-executor-$number" --flavor "${setting[flavor]}" --image "${setting[image]}" \
            --key-name "${setting[key]}" --network "$network" --security-group "$(group_id executor)" --user-data "$data" \
            --property "$(mark)" --property spool-role=executor "${disk[@]}" -f value -c id >/dev/null
        count=$((count + 1))
    done
    rm -f "$data"
    wait_for_servers
}

# The scratch volume of an executor; made if it is not there.
make_volume() {
    local line id status
    for line in "${volumes[@]}"; do
        if [[ $line == *" $cluster-scratch-$1 "* ]]; then
            first_id "$line"
            return
        fi
    done
    id=$(os volume create "$cluster-scratch-$1" --size "${setting[scratch]}" --property "$(mark)" -f value -c id)
    for ((; ; )); do
        status=$(os volume show "$id" -f value -c status)
        case $status in
            available) break ;;
            error*) die 1 "the volume $cluster-scratch-$1 is in the state $status" ;;
        esac
        sleep "$LOOK_EVERY_SECONDS"
    done
    printf '%s' "$id"
}

# Waits until no server is being built, and fails where one broke.
wait_for_servers() {
    local states name state deadline=$((SECONDS + BUILD_MOST_SECONDS)) building
    for ((; ; )); do
        building='' states=$(os server list --no-name-lookup --name "^$cluster-" -f value -c Name -c Status)
        while read -r name state; do
            case $state in
                BUILD) building+=" $name" ;;
                ERROR)
                    say "$name could not be built: $(openstack server show "$name" -f value -c fault)"
                    return 1
                    ;;
            esac
        done <<<"$states"
        [ -n "$building" ] || return 0
        if ((SECONDS > deadline)); then
            say "after $BUILD_MOST_SECONDS seconds these are not built:$building"
            return 1
        fi
        sleep "$LOOK_EVERY_SECONDS"
    done
}
