# shellcheck shell=bash disable=SC2034,SC2154 # the files of lib/ share their variables
# Checks of options, names, bucket and quota, and the cost estimate. They run before anything is created.

problems=()
problem() { problems+=("$*"); }

# Ends the command with exit code $1 if there are problems, and prints all of them.
no_problems() {
    [ ${#problems[@]} -gt 0 ] || return 0
    local line
    for line in "${problems[@]}"; do log "spool-cluster: $line"; done
    log "nothing was created"
    exit "$1"
}

check_name() {
    [[ $cluster =~ ^[a-z][a-z0-9]{0,15}$ ]] ||
        die 2 "--name $cluster: must be at most 16 lower-case letters and digits, starting with a letter"
}

check_credentials() {
    command -v openstack >/dev/null ||
        die 1 "\`openstack\` not found: python3 -m pip install python-openstackclient"
    if [ -z "${OS_CLOUD:-}${OS_AUTH_URL:-}" ]; then
        die 4 "no credentials: source the openrc.sh of an application credential (Horizon, Identity," \
            "Application Credentials), or set OS_CLOUD to an entry of clouds.yaml"
    fi
    project=$(openstack token issue -f value -c project_id) ||
        die 4 "the cloud refuses these credentials, see above: the application credential may have expired;" \
            "create a new one in Horizon"
}

is_number() { [[ $1 =~ ^(0|[1-9][0-9]{0,5})$ ]]; }
is_cidr() { [[ $1 =~ ^([0-9]{1,3}\.){3}[0-9]{1,3}/([0-9]|[12][0-9]|3[0-2])$ ]]; }

# Checks the values and their combinations. Values in systemd's environment files must not contain quotes or
# spaces.
check_settings() {
    local option
    for option in executors scratch drain-timeout hours; do
        is_number "${setting[$option]}" || problem "--$option ${setting[$option]}: must be a whole number"
    done
    for option in key flavor scheduler-flavor image ssh-user binary-url binary-sha256 database bucket \
        external-network s3-endpoint s3-region; do
        [[ ${setting[$option]} =~ ^[A-Za-z0-9._~:/@%+=,-]*$ ]] ||
            problem "--$option ${setting[$option]}: may contain only letters, digits and ._~:/@%+=,-" \
                "(percent-encode other characters in a URI)"
    done
    no_problems 2
    ((setting[executors] <= 200)) ||
        problem "--executors ${setting[executors]}: must be at most 200, because of the network's addresses"
    ((setting[drain-timeout] >= 1 && setting[drain-timeout] <= 3600)) ||
        problem "--drain-timeout ${setting[drain-timeout]}: must be 1 to 3600 seconds," \
            "because the unit's TimeoutStopSec is just above that"
    ((setting[scratch] == 0 || setting[scratch] >= 10)) ||
        problem "--scratch ${setting[scratch]}: must be at least 10 GB, or 0 for the root disk"
    if [ -n "${setting[idle-timeout]}" ]; then
        if ! is_number "${setting[idle-timeout]}" || ((setting[idle-timeout] < 60)); then
            problem "--idle-timeout ${setting[idle-timeout]}: must be at least 60 seconds, or empty"
        fi
    fi
    [ -n "${setting[key]}" ] ||
        problem "--key is missing: name a keypair for logins; \`openstack keypair list\` lists yours"
    if [ -z "${setting[ssh-from]}" ]; then
        problem "--ssh-from is missing: name the range for SSH logins, such as 203.0.113.7/32 for one address"
    elif ! is_cidr "${setting[ssh-from]}"; then
        problem "--ssh-from ${setting[ssh-from]}: must be a range such as 203.0.113.7/32"
    fi
    case ${setting[api]} in
        none | local) ;;
        *)
            is_cidr "${setting[api]}" ||
                problem "--api ${setting[api]}: must be none, local or a range such as 203.0.113.0/24"
            ;;
    esac
    [[ ${setting[network-cidr]} =~ ^(10|172|192)\.[0-9]{1,3}\.[0-9]{1,3}\.0/24$ ]] ||
        problem "--network-cidr ${setting[network-cidr]}: must be a private /24 such as 10.42.0.0/24"
    case ${setting[database]} in
        postgres://* | postgresql://* | /var/lib/spool/?*) ;;
        *)
            problem "--database ${setting[database]}: must be postgres://… or a file below /var/lib/spool," \
                "which the units may write"
            ;;
    esac
    [[ -z ${setting[bucket]} || ${setting[bucket]} =~ ^[a-z0-9][a-z0-9.-]{1,45}[a-z0-9]$ ]] ||
        problem "--bucket ${setting[bucket]}: must be 3 to 47 lower-case letters, digits, dots and dashes"
    [ "${setting[use-bucket]}" = no ] || [ -n "${setting[bucket]}" ] ||
        problem "--use-bucket needs --bucket NAME"
    check_binary
    no_problems 2
}

check_binary() {
    local sum
    if [ -n "${setting[binary]}" ]; then
        if [ -n "${given[binary-url]:-}" ]; then
            problem "--binary and --binary-url exclude each other: give one of them"
        elif [ ! -r "${setting[binary]}" ]; then
            problem "--binary ${setting[binary]}: no such file"
        else
            sum=$(sha256sum "${setting[binary]}")
            setting[binary-sha256]=${sum%% *}
        fi
    elif [ -z "${setting[binary-url]}" ]; then
        problem "--binary FILE or --binary-url URL is missing: name the spool binary to install"
    elif ! [[ ${setting[binary-sha256]} =~ ^[0-9a-f]{64}$ ]]; then
        problem "--binary-url needs --binary-sha256 SUM: 64 hexadecimal digits, as sha256sum prints them"
    fi
}

# Prints the fields of a flavor in flavors.csv: cores, GB of memory, GB of disk, service units an hour,
# resource, note, date, source.
flavor_fields() {
    awk -F , -v OFS='\t' -v flavor="$1" '$1 == flavor { print $2, $3, $4, $5, $6, $7, $8, $9 }' \
        "$root/flavors.csv"
}

# Checks that the named resources exist, and that the quota suffices.
check_cloud() {
    local option limits known
    known=$(cut -d , -f 1 "$root/flavors.csv" | tail -n +2 | paste -sd ' ')
    for option in flavor scheduler-flavor; do
        if [ -z "$(flavor_fields "${setting[$option]}")" ]; then
            problem "--$option ${setting[$option]}: not in flavors.csv, which has $known"
        elif ! exists flavor show "${setting[$option]}" -f value -c id; then
            problem "--$option ${setting[$option]}: not available to this project;" \
                "\`openstack flavor list\` lists the available flavors"
        fi
    done
    exists image show "${setting[image]}" -f value -c id ||
        problem "--image ${setting[image]}: no such image; \`openstack image list\` lists the images"
    exists keypair show "${setting[key]}" -f value -c name ||
        problem "--key ${setting[key]}: no such keypair; \`openstack keypair list\` lists yours," \
            "\`openstack keypair create --public-key FILE ${setting[key]}\` creates one"
    exists network show "${setting[external-network]}" -f value -c id ||
        problem "--external-network ${setting[external-network]}: no such network;" \
            "\`openstack network list --external\` lists the external networks"
    if [ -z "${setting[binary]}" ] && [[ ${setting[binary-url]} != "${setting[s3-endpoint]}"/* ]] &&
        ! curl --fail --silent --head --location --max-time 30 --output /dev/null \
            "${setting[binary-url]}"; then
        problem "--binary-url ${setting[binary-url]}: cannot be fetched"
    fi
    no_problems 3
    check_names
    check_bucket
    limits=$(os limits show --absolute -f value)
    check_quota "$limits"
    no_problems 1
}

# Checks that resources with the cluster's names carry its mark, and that its settings are available here.
check_names() {
    local other
    other=$(os network list --name "$cluster-network" -f value -c ID)
    if [ -n "$other" ] && [ "$other" != "$network" ]; then foreign+=("network $cluster-network"); fi
    if [ ${#foreign[@]} -gt 0 ]; then
        problem "already exists without the cluster's mark: ${foreign[*]}: use another --name"
    elif [ -n "$network" ] && [ ! -r "$(state_folder)/settings" ]; then
        problem "the cluster $cluster exists, but its settings are not in $(state_folder):" \
            "run this where it was created, copy that folder, or delete the cluster first" \
            "(spool-cluster down --name $cluster)"
    fi
}

# Checks that the bucket can be used or created. All projects share one space of bucket names; of another
# project's bucket only its existence is visible.
check_bucket() {
    local status
    case $bucket_owner in
        ours) ;;
        foreign)
            [ "${setting[use-bucket]}" = yes ] ||
                problem "--bucket ${setting[bucket]}: exists in this project, but not for this cluster:" \
                    "use another, or add --use-bucket"
            ;;
        none)
            if [ "${setting[use-bucket]}" = yes ]; then
                problem "--use-bucket: this project has no bucket ${setting[bucket]};" \
                    "\`openstack container list\` lists its buckets"
                return
            fi
            status=$(curl --silent --max-time 30 --output /dev/null --write-out '%{http_code}' \
                "${setting[s3-endpoint]}/${setting[bucket]}") ||
                problem "--s3-endpoint ${setting[s3-endpoint]}: does not respond"
            case $status in
                000 | 404) ;;
                *)
                    problem "--bucket ${setting[bucket]}: another project has a bucket of this name" \
                        "(the object store responds $status): use another name"
                    ;;
            esac
            ;;
    esac
}

# Checks that the quota suffices for the missing resources. $1 has lines of a limit and its value. Older
# clients print maxTotalCores, newer ones max_total_cores; an unlimited resource has -1 or None.
check_quota() {
    local -A limit=()
    local name value cores ram more_cores more_ram missing more_servers more_volumes fields
    while read -r name value; do
        [[ ! $value =~ ^-?[0-9]+$ ]] || limit[$name]=$value
    done < <(tr -d _ <<<"${1,,}")
    IFS=$'\t' read -r cores ram _ <<<"$(flavor_fields "${setting[flavor]}")"
    missing=$((setting[executors] - $(executor_numbers | wc -l)))
    ((missing > 0)) || missing=0
    more_servers=$missing more_cores=$((missing * cores)) more_ram=$((missing * ram * 1000))
    if [ -z "$(server_line "$cluster-scheduler")" ]; then
        IFS=$'\t' read -ra fields <<<"$(flavor_fields "${setting[scheduler-flavor]}")"
        more_servers=$((more_servers + 1)) more_cores=$((more_cores + fields[0]))
        more_ram=$((more_ram + fields[1] * 1000))
    fi
    check_room instances "$more_servers" "${limit[totalinstancesused]:-0}" "${limit[maxtotalinstances]:--1}" \
        "--executors"
    check_room cores "$more_cores" "${limit[totalcoresused]:-0}" "${limit[maxtotalcores]:--1}" \
        "--executors or --flavor"
    check_room 'MB of memory' "$more_ram" "${limit[totalramused]:-0}" "${limit[maxtotalramsize]:--1}" \
        "--executors or --flavor"
    ((setting[scratch] > 0)) || return 0
    more_volumes=$((setting[executors] - ${#volumes[@]}))
    ((more_volumes > 0)) || return 0
    check_room volumes "$more_volumes" "${limit[totalvolumesused]:-0}" "${limit[maxtotalvolumes]:--1}" \
        "--executors, or --scratch 0"
    check_room 'GB of volumes' $((more_volumes * setting[scratch])) "${limit[totalgigabytesused]:-0}" \
        "${limit[maxtotalvolumegigabytes]:--1}" --scratch
}

check_room() {
    local resource=$1 needed=$2 used=$3 maximum=$4 option=$5
    ((maximum < 0 || used + needed <= maximum)) ||
        problem "the quota is exhausted: $needed more $resource are needed, and $used of $maximum are in use:" \
            "lower $option, delete resources, or ask for more (help@jetstream-cloud.org)"
}

# Prints the estimated cost, in service units.
estimate() {
    local su_scheduler su_executor date note option total
    IFS=$'\t' read -r _ _ _ su_scheduler _ <<<"$(flavor_fields "${setting[scheduler-flavor]}")"
    su_executor=$(flavor_fields "${setting[flavor]}" | cut -f 4)
    date=$(flavor_fields "${setting[flavor]}" | cut -f 7)
    total=$((su_scheduler + setting[executors] * su_executor))
    printf '%-10s %-10s %6s %12s\n' '' flavor number 'SU an hour'
    printf '%-10s %-10s %6d %12d\n' scheduler "${setting[scheduler-flavor]}" 1 "$su_scheduler"
    printf '%-10s %-10s %6d %12d\n' executors "${setting[flavor]}" "${setting[executors]}" \
        $((setting[executors] * su_executor))
    printf '%-10s %-10s %6s %12d\n' total '' '' "$total"
    printf '%d SU in %d hours, %d in a month of 730 hours. Rates of %s.\n' \
        $((total * setting[hours])) "${setting[hours]}" $((total * 730)) "$date"
    if ((setting[scratch] > 0)); then
        printf '%d GB of volumes and the contents of the bucket count against the storage allocation.\n' \
            $((setting[executors] * setting[scratch]))
    fi
    for option in flavor scheduler-flavor; do
        note=$(flavor_fields "${setting[$option]}" | cut -f 6)
        [ -z "$note" ] || printf 'Note on %s: %s.\n' "${setting[$option]}" "$note"
    done
}

# Runs all checks.
check_all() {
    local changed
    load_state || true
    check_settings
    changed=$(changed_settings)
    [ -z "$changed" ] ||
        die 2 "the cluster $cluster was created with other settings;" \
            "delete it first, or omit these:"$'\n'"$changed"
    inventory
    check_cloud
}

plan() {
    check_all
    log "all checks passed; bucket ${setting[bucket]} ($bucket_owner), ${#servers[@]} servers so far"
    estimate
}
