# shellcheck shell=bash disable=SC2034,SC2154 # the files of lib/ know each other's names
# What is there? Asks the cloud, and knows what is ours by its mark.

# Runs `openstack`; where it fails, says which step did. What it wrote on stderr stands above.
os() {
    openstack "$@" || {
        local code=$?
        say "spool-cluster: \`openstack $1 $2 ${3:-}\` failed, see above"
        return "$code"
    }
}

# Is something there? What is said of it, or nothing. Other failures than "not there" are shown, and end the command.
os_show() {
    local output
    if output=$(openstack "$@" 2>&1); then
        printf '%s\n' "$output"
    elif ! grep -qiE 'no .* (found|with a name)|not found|could not find|HTTP 404' <<<"$output"; then
        die 1 "\`openstack $1 $2 $3\` failed: $output"
    fi
}

# The same as a condition.
exists() {
    local shown
    shown=$(os_show "$@") || exit $?
    [ -n "$shown" ]
}

# Takes lines of stdin into the array $1.
into() {
    local line
    local -n array=$1
    array=()
    while IFS= read -r line; do
        [ -z "$line" ] || array+=("$line")
    done
}

mark() { printf 'spool-cluster=%s' "$cluster"; }

# Does what is printed of properties hold our mark? Clients print it as `a='b'` or `{'a': 'b'}`.
is_marked() { grep -qiE "spool-cluster['\"]?[:=] *['\"]${cluster}['\"]" <<<"$1"; }

# What there is of the cluster, by `inventory`: lines of an id, a name and more. `foreign` has our names and not our mark.
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
    lines=$(os floating ip list --tags "$(mark)" -f value -c ID -c 'Floating IP Address') && into addresses <<<"$lines"
    servers=() volumes=() foreign=()
    # Servers and volumes cannot be listed by property everywhere.
    lines=$(os server list --long --no-name-lookup --name "^$cluster-" -f value \
        -c ID -c Name -c Status -c Networks -c Properties)
    while read -r id name status line; do
        if [[ $name =~ ^$cluster-(scheduler|executor-[0-9]+)$ ]]; then
            if is_marked "$line"; then servers+=("$id $name $status $line"); else foreign+=("server $name"); fi
        fi
    done <<<"$lines"
    lines=$(os volume list --long -f value -c ID -c Name -c Status -c Properties)
    while read -r id name status line; do
        if [[ $name =~ ^$cluster-scratch-[0-9]+$ ]]; then
            if is_marked "$line"; then volumes+=("$id $name $status"); else foreign+=("volume $name"); fi
        fi
    done <<<"$lines"
    # The tags of the network tell which keys and which bucket are the cluster's.
    if [[ $network_tags =~ spool-ec2=([A-Za-z0-9]+) ]]; then s3_access=${BASH_REMATCH[1]}; fi
    if [[ -z ${setting[bucket]} && $network_tags =~ spool-bucket=([a-z0-9.-]+) ]]; then setting[bucket]=${BASH_REMATCH[1]}; fi
    setting[bucket]=${setting[bucket]:-$cluster-${project:0:12}}
    look_at_bucket
}

# Whose is the bucket, of those of this project: `ours` by its mark, `foreign`, or `none`.
bucket_is=none
look_at_bucket() {
    local shown
    shown=$(os_show container show "${setting[bucket]}" -f json)
    if [ -z "$shown" ]; then bucket_is=none; elif is_marked "$shown"; then bucket_is=ours; else bucket_is=foreign; fi
}

# The first id of lines.
first_id() { printf '%s' "${1%% *}"; }

# The numbers of the executors, ascending; of those in a state, where one is given.
executor_numbers() {
    local line fields
    for line in "${servers[@]}"; do
        read -ra fields <<<"$line"
        if [[ ${fields[1]} == *-executor-* && (-z ${1:-} || ${fields[2]} == "$1") ]]; then echo "${fields[1]##*-}"; fi
    done | sort -n
}

# The line of a server by its name.
server_line() {
    local line
    for line in "${servers[@]}"; do
        [[ $line != *" $1 "* ]] || printf '%s\n' "$line"
    done
}

# The private address in a server's line.
address_of() { grep -oE '([0-9]{1,3}\.){3}[0-9]{1,3}' <<<"$1" | head -n 1; }

public_address() { [ ${#addresses[@]} -eq 0 ] || printf '%s' "${addresses[0]#* }"; }
