# shellcheck shell=bash disable=SC2034,SC2154 # the files of lib/ share their variables
# Renders the user data of instances from the templates of cloud-init/, as the OpenTofu module does.

# Nova accepts 65,535 bytes of encoded user data; base64 adds a third.
USER_DATA_MAX_BYTES=49000

base64_of() { base64 -w 0 "$root/$1"; }

# Values of the templates' placeholders. The OpenTofu module uses the same names (tofu/cloud-init/main.tf).
declare -A placeholders=()
set_placeholders() {
    local api_listen=0.0.0.0:8080 api_auth=keys units='spool-scheduler, spool-api' scratch=root
    local idle='# SPOOL_IDLE_TIMEOUT is unset: an idle executor stays'
    [ "${setting[api]}" != none ] || units=spool-scheduler
    case ${setting[api]} in none | local) api_listen=127.0.0.1:8080 api_auth=none ;; esac
    [ -z "${setting[idle-timeout]}" ] || idle=SPOOL_IDLE_TIMEOUT=${setting[idle-timeout]}
    ((setting[scratch] == 0)) || scratch=volume
    placeholders=(
        [scheduler]=$(scheduler_address):50050 [token]=$token
        [database]=${setting[database]} [bucket]=${setting[bucket]}
        [drain_timeout]=${setting[drain-timeout]} [idle_timeout]=$idle [scratch]=$scratch
        [api_listen]=$api_listen [api_auth]=$api_auth [scheduler_units]=$units
        [s3_endpoint]=${setting[s3-endpoint]} [s3_region]=${setting[s3-region]}
        [s3_access]=$s3_access [s3_secret]=$s3_secret
        [binary_url]=${setting[binary-url]} [binary_sha256]=${setting[binary-sha256]}
        [scheduler_unit]=$(base64_of systemd/spool-scheduler.service)
        [api_unit]=$(base64_of systemd/spool-api.service)
        [executor_unit]=$(base64_of systemd/spool-executor.service)
        [make_scratch]=$(base64_of cloud-init/files/make-scratch)
        [fetch_spool]=$(base64_of cloud-init/files/fetch-spool)
        [set_up]=$(base64_of cloud-init/files/set-up)
        [spool_here]=$(base64_of cloud-init/files/spool-here)
        [off_when_idle]=$(base64_of cloud-init/files/off-when-idle)
        [off_when_idle_conf]=$(base64_of cloud-init/files/off-when-idle.conf)
    )
}

# Prints the scheduler's address, the tenth of the network.
scheduler_address() { printf '%s10' "${setting[network-cidr]%0/24}"; }

# Writes the user data of a role ($1) to a file ($2).
render() {
    local text name
    set_placeholders
    text=$(<"$root/cloud-init/$1.yaml")
    for name in "${!placeholders[@]}"; do text=${text//"\${$name}"/"${placeholders[$name]}"}; done
    # shellcheck disable=SC2016 # a literal dollar
    [[ $text != *'${'* ]] || die 1 "cloud-init/$1.yaml has an unknown placeholder"
    ((${#text} <= USER_DATA_MAX_BYTES)) ||
        die 1 "the user data of the $1 has ${#text} bytes, and the limit is $USER_DATA_MAX_BYTES"
    (
        umask 077
        printf '%s\n' "$text" >"$2"
    )
}
