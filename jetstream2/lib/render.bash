# shellcheck shell=bash disable=SC2034,SC2154 # the files of lib/ know each other's names
# What does an instance get? cloud-init's files, with the same units and scripts as the OpenTofu module's.

# More than Nova takes, once encoded.
USER_DATA_MAX_BYTES=49000

base64_of() { base64 -w 0 "$root/$1"; }

# What stands in braces in the templates. The OpenTofu module has the same names (tofu/cloud-init/main.tf).
declare -A blank=()
fill_in() {
    local api_listen=0.0.0.0:8080 api_auth=keys units='spool-scheduler, spool-api' idle='# SPOOL_IDLE_TIMEOUT is unset: an idle executor stays'
    local scratch=root
    [ "${setting[api]}" != none ] || units=spool-scheduler
    case ${setting[api]} in none | local) api_listen=127.0.0.1:8080 api_auth=none ;; esac
    [ -z "${setting[idle-timeout]}" ] || idle=SPOOL_IDLE_TIMEOUT=${setting[idle-timeout]}
    ((setting[scratch] == 0)) || scratch=volume
    blank=(
        [scheduler]=$(scheduler_address):50050 [token]=$token [database]=${setting[database]} [bucket]=${setting[bucket]}
        [drain_timeout]=${setting[drain-timeout]} [idle_timeout]=$idle [scratch]=$scratch
        [api_listen]=$api_listen [api_auth]=$api_auth [scheduler_units]=$units
        [s3_endpoint]=${setting[s3-endpoint]} [s3_region]=${setting[s3-region]} [s3_access]=$s3_access [s3_secret]=$s3_secret
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

# The tenth address of the network.
scheduler_address() { printf '%s10' "${setting[network-cidr]%0/24}"; }

# Writes the user data of a role ($1) to a file ($2).
render() {
    local text name
    fill_in
    text=$(<"$root/cloud-init/$1.yaml")
    for name in "${!blank[@]}"; do text=${text//"\${$name}"/"${blank[$name]}"}; done
    # shellcheck disable=SC2016 # the dollar is meant
    [[ $text != *'${'* ]] || die 1 "cloud-init/$1.yaml has a blank that nothing fills in"
    ((${#text} <= USER_DATA_MAX_BYTES)) || die 1 "the user data of the $1 has ${#text} bytes, and $USER_DATA_MAX_BYTES are the most"
    (
        umask 077
        printf '%s\n' "$text" >"$2"
    )
}
