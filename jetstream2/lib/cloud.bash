# shellcheck shell=bash disable=SC2034,SC2154 # the files of lib/ share their variables
# Queries the cloud. Resources of the cluster are recognized by its mark.

# Runs `openstack`, and reports the step if it fails. The client's own message precedes the report on stderr.
os() {
    openstack "$@" || {
        local code=$?
        log "spool-cluster: \`openstack $1 $2 ${3:-}\` failed, see above"
        return "$code"
    }
}

# Prints the details of a resource, or nothing if it does not exist. Ends the command on any other failure.
os_show() {
    local output
    if output=$(openstack "$@" 2>&1); then
        printf '%s\n' "$output"
    elif ! grep -qiE 'no .* (found|with a name)|not found|could not find|HTTP 404' <<<"$output"; then
        die 1 "\`openstack $1 $2 $3\` failed: $output"
    fi
}

# Returns whether a resource exists.
exists() {
    local shown
    shown=$(os_show "$@") || exit $?
    [ -n "$shown" ]
}

# Reads the lines of stdin into the array $1.
into() {
    local line
    local -n array=$1
    array=()
    while IFS= read -r line; do
        [ -z "$line" ] || array+=("$line")
    done
}

mark() { printf 'spool-cluster=%s' "$cluster"; }

# Returns whether printed properties contain the mark. Clients print properties as `a='b'` or `{'a': 'b'}`.
is_marked() { grep -qiE "spool-cluster['\"]?[:=] *['\"]${cluster}['\"]" <<<"$1"; }

# The cluster's resources, set by `inventory`: lines with an ID, a name and more. `foreign` lists resources
# that have the cluster's names, but not its mark.
project='' network='' network_tags=''
routers=() subnets=() ports=() groups=() addresses=() servers=() volumes=() foreign=()

inventory() {
    local lines line id name status
    lines=$(os network list --long --tags "$(mark)" -f value -c ID -c Name -c Tags)
    network=${lines%% *} network_tags=${lines#* }
    lines=$(os router list --tags "$(mark)" -f value -c ID -c Name) && into routers <<<"$lines"
    lines=$(os subnet list --tags "$(mark)" -f value -c ID -c Name) && into subnets <<<"$lines"
    lines=$(os port list --tags "$(mark)" -f value -c ID -c Name) && into ports <<<"$lines"
    lines=$(os security group list --tags "$(mark)" -f value -c ID -c Name) && into groups <<<"$lines"
    lines=$(os floating ip list --tags "$(mark)" -f value -c ID -c 'Floating IP Address') &&
        into addresses <<<"$lines"
    servers=() volumes=() foreign=()
    # Not every cloud can list servers and volumes by property.
    lines=$(os server list --long --no-name-lookup --name "^$cluster-" -f value \
        -c ID -c Name -c Status -c Networks -c Properties)
    while read -r id name status line; do
        if [[ $name =~ ^$cluster-(scheduler|executor-[0-9]+)$ ]]; then
            if is_marked "$line"; then
                servers+=("$id $name $status $line")
            else
                foreign+=("server $name")
            fi
        fi
    done <<<"$lines"
    lines=$(os volume list --long -f value -c ID -c Name -c Status -c Properties)
    while read -r id name status line; do
        if [[ $name =~ ^$cluster-scratch-[0-9]+$ ]]; then
            if is_marked "$line"; then volumes+=("$id $name $status"); else foreign+=("volume $name"); fi
        fi
    done <<<"$lines"
    # The tags of the network record the cluster's keys and bucket.
    if [[ $network_tags =~ spool-ec2=([A-Za-z0-9]+) ]]; then s3_access=${BASH_REMATCH[1]}; fi
    if [[ -z ${setting[bucket]} && $network_tags =~ spool-bucket=([a-z0-9.-]+) ]]; then
        setting[bucket]=${BASH_REMATCH[1]}
    fi
    setting[bucket]=${setting[bucket]:-$cluster-${project:0:12}}
    find_bucket_owner
}

# Owner of the bucket among this project's buckets: `ours` (marked), `foreign` (unmarked), or `none` (no such
# bucket).
bucket_owner=none
find_bucket_owner() {
    local shown
    shown=$(os_show container show "${setting[bucket]}" -f json)
    if [ -z "$shown" ]; then
        bucket_owner=none
    elif is_marked "$shown"; then
        bucket_owner=ours
    else
        bucket_owner=foreign
    fi
}

# Prints the ID at the start of a line.
first_id() { printf '%s' "${1%% *}"; }

# Prints the numbers of the executors in ascending order, or only those in the state $1.
executor_numbers() {
    local line fields
    for line in "${servers[@]}"; do
        read -ra fields <<<"$line"
        if [[ ${fields[1]} == *-executor-* && (-z ${1:-} || ${fields[2]} == "$1") ]]; then
            echo "${fields[1]##*-}"
        fi
    done | sort -n
}

# Prints the line of the server with the name $1.
server_line() {
    local line
    for line in "${servers[@]}"; do
        [[ $line != *" $1 "* ]] || printf '%s\n' "$line"
    done
}

# Prints the private address in a server's line.
address_of() { grep -oE '([0-9]{1,3}\.){3}[0-9]{1,3}' <<<"$1" | head -n 1; }

public_address() { [ ${#addresses[@]} -eq 0 ] || printf '%s' "${addresses[0]#* }"; }
