# shellcheck shell=bash disable=SC2034,SC2154 # the files of lib/ know each other's names
# Can it be made, and what would it cost? Everything that is asked here is asked before anything is created.

problems=()
problem() { problems+=("$*"); }

# Ends the command where there are problems, and tells all of them.
no_problems() {
    [ ${#problems[@]} -gt 0 ] || return 0
    local line
    for line in "${problems[@]}"; do say "spool-cluster: $line"; done
    say "nothing was created"
    exit "$1"
}

check_name() {
    [[ $cluster =~ ^[a-z][a-z0-9]{0,15}$ ]] ||
        die 2 "--name $cluster: at most 16 small letters and digits, a letter first: it becomes part of other names"
}

check_credentials() {
    command -v openstack >/dev/null || die 1 "there is no \`openstack\` command: python3 -m pip install python-openstackclient"
    if [ -z "${OS_CLOUD:-}${OS_AUTH_URL:-}" ]; then
        die 4 "no credentials: source the openrc.sh of an application credential (Horizon, Identity, Application Credentials)," \
            "or set OS_CLOUD to an entry of clouds.yaml"
    fi
    project=$(openstack token issue -f value -c project_id) ||
        die 4 "the cloud refuses these credentials, see above: an application credential may have expired; Horizon makes a new one"
}

is_number() { [[ $1 =~ ^(0|[1-9][0-9]{0,5})$ ]]; }
is_cidr() { [[ $1 =~ ^([0-9]{1,3}\.){3}[0-9]{1,3}/([0-9]|[12][0-9]|3[0-2])$ ]]; }

# Values by themselves and against each other. What stands in a file of systemd's has no quotes and no spaces.
check_settings() {
    local option
    for option in executors scratch drain-timeout hours; do
        is_number "${setting[$option]}" || problem "--$option ${setting[$option]}: a whole number is wanted"
    done
    for option in key flavor scheduler-flavor image ssh-user binary-url binary-sha256 database bucket external-network s3-endpoint \
        s3-region; do
        [[ ${setting[$option]} =~ ^[A-Za-z0-9._~:/@%+=,-]*$ ]] ||
            problem "--$option ${setting[$option]}: letters, digits and ._~:/@%+=,- are taken (percent-encode others in a URI)"
    done
    no_problems 2
    ((setting[executors] <= 200)) || problem "--executors ${setting[executors]}: 200 at most, for the addresses of the network"
    ((setting[drain-timeout] >= 1 && setting[drain-timeout] <= 3600)) ||
        problem "--drain-timeout ${setting[drain-timeout]}: 1 to 3600 seconds, since the unit's TimeoutStopSec is longer than that"
    ((setting[scratch] == 0 || setting[scratch] >= 10)) ||
        problem "--scratch ${setting[scratch]}: 10 GB at least, or 0 for the root disk"
    if [ -n "${setting[idle-timeout]}" ]; then
        if ! is_number "${setting[idle-timeout]}" || ((setting[idle-timeout] < 60)); then
            problem "--idle-timeout ${setting[idle-timeout]}: 60 seconds at least, or nothing"
        fi
    fi
    [ -n "${setting[key]}" ] || problem "--key is missing: a keypair to log in with, of those of \`openstack keypair list\`"
    if [ -z "${setting[ssh-from]}" ]; then
        problem "--ssh-from is missing: from where people log in, such as 203.0.113.7/32 for one address"
    elif ! is_cidr "${setting[ssh-from]}"; then
        problem "--ssh-from ${setting[ssh-from]}: a range such as 203.0.113.7/32 is wanted"
    fi
    case ${setting[api]} in
        none | local) ;;
        *) is_cidr "${setting[api]}" || problem "--api ${setting[api]}: none, local or a range such as 203.0.113.0/24" ;;
    esac
    [[ ${setting[network-cidr]} =~ ^(10|172|192)\.[0-9]{1,3}\.[0-9]{1,3}\.0/24$ ]] ||
        problem "--network-cidr ${setting[network-cidr]}: a private /24 such as 10.42.0.0/24 is wanted"
    case ${setting[database]} in
        postgres://* | postgresql://* | /var/lib/spool/?*) ;;
        *) problem "--database ${setting[database]}: postgres://…, or a file below /var/lib/spool, which the units may write" ;;
    esac
    [[ -z ${setting[bucket]} || ${setting[bucket]} =~ ^[a-z0-9][a-z0-9.-]{1,45}[a-z0-9]$ ]] ||
        problem "--bucket ${setting[bucket]}: 3 to 47 small letters, digits, dots and dashes"
    [ "${setting[use-bucket]}" = no ] || [ -n "${setting[bucket]}" ] || problem "--use-bucket wants --bucket NAME: which?"
    check_binary
    no_problems 2
}

check_binary() {
    local sum
    if [ -n "${setting[binary]}" ]; then
        if [ -n "${given[binary-url]:-}" ]; then
            problem "--binary and --binary-url contradict each other: say one"
        elif [ ! -r "${setting[binary]}" ]; then
            problem "--binary ${setting[binary]}: no such file"
        else
            sum=$(sha256sum "${setting[binary]}")
            setting[binary-sha256]=${sum%% *}
        fi
    elif [ -z "${setting[binary-url]}" ]; then
        problem "--binary FILE or --binary-url URL is missing: which spool is to run?"
    elif ! [[ ${setting[binary-sha256]} =~ ^[0-9a-f]{64}$ ]]; then
        problem "--binary-url wants --binary-sha256 SUM: 64 digits, as sha256sum prints them"
    fi
}

# The fields of a flavor in flavors.csv: cores, GB of memory, GB of disk, service units an hour, resource, note, date, source.
flavor_fields() { awk -F , -v OFS='\t' -v flavor="$1" '$1 == flavor { print $2, $3, $4, $5, $6, $7, $8, $9 }' "$root/flavors.csv"; }

# What the names mean that were given, and whether there is room.
check_cloud() {
    local option limits known
    known=$(cut -d , -f 1 "$root/flavors.csv" | tail -n +2 | paste -sd ' ')
    for option in flavor scheduler-flavor; do
        if [ -z "$(flavor_fields "${setting[$option]}")" ]; then
            problem "--$option ${setting[$option]}: flavors.csv has no rate for it; it has $known"
        elif ! exists flavor show "${setting[$option]}" -f value -c id; then
            problem "--$option ${setting[$option]}: this project cannot use it; \`openstack flavor list\` tells what it can"
        fi
    done
    exists image show "${setting[image]}" -f value -c id ||
        problem "--image ${setting[image]}: no such image; \`openstack image list\` tells those that there are"
    exists keypair show "${setting[key]}" -f value -c name ||
        problem "--key ${setting[key]}: no such keypair; \`openstack keypair list\` tells yours," \
            "\`openstack keypair create --public-key FILE ${setting[key]}\` makes one"
    exists network show "${setting[external-network]}" -f value -c id ||
        problem "--external-network ${setting[external-network]}: no such network;" \
            "\`openstack network list --external\` tells those that there are"
    if [ -z "${setting[binary]}" ] && [[ ${setting[binary-url]} != "${setting[s3-endpoint]}"/* ]] &&
        ! curl --fail --silent --head --location --max-time 30 --output /dev/null "${setting[binary-url]}"; then
        problem "--binary-url ${setting[binary-url]}: nothing is there to fetch"
    fi
    no_problems 3
    check_names
    check_bucket
    limits=$(os limits show --absolute -f value)
    check_quota "$limits"
    no_problems 1
}

# What has our names is ours, and was made from here.
check_names() {
    local other
    other=$(os network list --name "$cluster-network" -f value -c ID)
    if [ -n "$other" ] && [ "$other" != "$network" ]; then foreign+=("network $cluster-network"); fi
    if [ ${#foreign[@]} -gt 0 ]; then
        problem "there is already: ${foreign[*]}, without the mark of a cluster: take another --name"
    elif [ -n "$network" ] && [ ! -r "$(state_folder)/settings" ]; then
        problem "the cluster $cluster is there, and its settings are not in $(state_folder): run this where it was made," \
            "copy that folder, or take it down first (spool-cluster down --name $cluster)"
    fi
}

# Whose is the bucket? Names are one space for all projects: of others' we only see that they are there.
check_bucket() {
    local status
    case $bucket_is in
        ours) ;;
        foreign)
            [ "${setting[use-bucket]}" = yes ] ||
                problem "--bucket ${setting[bucket]}: this project has it already, and not for this cluster: take another, or" \
                    "say --use-bucket"
            ;;
        none)
            if [ "${setting[use-bucket]}" = yes ]; then
                problem "--use-bucket: this project has no bucket ${setting[bucket]};" \
                    "\`openstack container list\` tells those that it has"
                return
            fi
            status=$(curl --silent --max-time 30 --output /dev/null --write-out '%{http_code}' \
                "${setting[s3-endpoint]}/${setting[bucket]}") ||
                problem "--s3-endpoint ${setting[s3-endpoint]}: it does not answer"
            case $status in
                000 | 404) ;;
                *)
                    problem "--bucket ${setting[bucket]}: another project has a bucket of this name (the store answers $status):" \
                        "take another"
                    ;;
            esac
            ;;
    esac
}

# Is there room for what is still to be made? $1 has lines of a limit and its value. Older clients say maxTotalCores, newer ones
# max_total_cores; what a cloud does not limit is -1 or None.
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
        more_servers=$((more_servers + 1)) more_cores=$((more_cores + fields[0])) more_ram=$((more_ram + fields[1] * 1000))
    fi
    room instances "$more_servers" "${limit[totalinstancesused]:-0}" "${limit[maxtotalinstances]:--1}" "--executors"
    room cores "$more_cores" "${limit[totalcoresused]:-0}" "${limit[maxtotalcores]:--1}" "--executors or --flavor"
    room 'MB of memory' "$more_ram" "${limit[totalramused]:-0}" "${limit[maxtotalramsize]:--1}" "--executors or --flavor"
    ((setting[scratch] > 0)) || return 0
    more_volumes=$((setting[executors] - ${#volumes[@]}))
    ((more_volumes > 0)) || return 0
    room volumes "$more_volumes" "${limit[totalvolumesused]:-0}" "${limit[maxtotalvolumes]:--1}" "--executors, or --scratch 0"
    room 'GB of volumes' $((more_volumes * setting[scratch])) "${limit[totalgigabytesused]:-0}" \
        "${limit[maxtotalvolumegigabytes]:--1}" --scratch
}

room() {
    local what=$1 wanted=$2 used=$3 most=$4 option=$5
    ((most < 0 || used + wanted <= most)) ||
        problem "the quota is exhausted: $wanted more $what are wanted, and $used of $most are in use: lower $option, delete" \
            "something, or ask for more (help@jetstream-cloud.org)"
}

# What it takes, in service units.
estimate() {
    local su_scheduler su_executor date note option total
    IFS=$'\t' read -r _ _ _ su_scheduler _ <<<"$(flavor_fields "${setting[scheduler-flavor]}")"
    su_executor=$(flavor_fields "${setting[flavor]}" | cut -f 4)
    date=$(flavor_fields "${setting[flavor]}" | cut -f 7)
    total=$((su_scheduler + setting[executors] * su_executor))
    printf '%-10s %-10s %6s %12s\n' '' flavor number 'SU an hour'
    printf '%-10s %-10s %6d %12d\n' scheduler "${setting[scheduler-flavor]}" 1 "$su_scheduler"
    printf '%-10s %-10s %6d %12d\n' executors "${setting[flavor]}" "${setting[executors]}" $((setting[executors] * su_executor))
    printf '%-10s %-10s %6s %12d\n' 'in all' '' '' "$total"
    printf '%d SU in %d hours, %d in a month of 730 hours. Rates of %s.\n' \
        $((total * setting[hours])) "${setting[hours]}" $((total * 730)) "$date"
    if ((setting[scratch] > 0)); then
        printf '%d GB of volumes count against the storage allocation, and so does what is in the bucket.\n' \
            $((setting[executors] * setting[scratch]))
    fi
    for option in flavor scheduler-flavor; do
        note=$(flavor_fields "${setting[$option]}" | cut -f 6)
        [ -z "$note" ] || printf 'Mind, of %s: %s.\n' "${setting[$option]}" "$note"
    done
}

# Everything that is asked before anything is made.
check_all() {
    local changed
    load_state || true
    check_settings
    changed=$(changed_settings)
    [ -z "$changed" ] ||
        die 2 "the cluster $cluster was made with other settings; take it down first, or leave these out:"$'\n'"$changed"
    inventory
    check_cloud
}

plan() {
    check_all
    say "everything is there that is needed; bucket ${setting[bucket]} ($bucket_is), ${#servers[@]} servers so far"
    estimate
}
