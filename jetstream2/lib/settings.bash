# shellcheck shell=bash disable=SC2034,SC2154 # the files of lib/ share their variables
# Options, their defaults, and the settings that are kept between commands.

die() {
    local code=$1
    shift
    printf 'spool-cluster: %s\n' "$*" >&2
    exit "$code"
}

log() { printf '%s\n' "$*" >&2; }

# Settings by option name. `kept` lists those that are saved, because they define the cluster.
declare -A setting=(
    [name]=spool
    [key]='' [ssh-from]='' [binary]='' [binary-url]='' [binary-sha256]=''
    [executors]=2 [flavor]=m3.medium [scheduler-flavor]=m3.small [image]=Featured-Ubuntu24 [ssh-user]=ubuntu
    [scratch]=0 [drain-timeout]=300 [idle-timeout]='' [api]=local [database]=/var/lib/spool/jobs.db
    [bucket]='' [use-bucket]=no
    [network-cidr]=10.42.0.0/24 [external-network]=public
    [s3-endpoint]=https://js2.jetstream-cloud.org:8001 [s3-region]=RegionOne
    [hours]=24 [yes]=no [state]='' [no-drain]=no [delete-bucket]=no
)
kept=(key ssh-from binary-url binary-sha256 flavor scheduler-flavor image ssh-user scratch drain-timeout
    idle-timeout api database bucket use-bucket network-cidr external-network s3-endpoint s3-region)
declare -A given=()
operands=()
# The name of the cluster, set once options are parsed.
cluster=''

parse_options() {
    local option
    while (($#)); do
        option=${1#--}
        case $1 in
            --yes | --use-bucket | --no-drain | --delete-bucket) setting[$option]=yes ;;
            --*=*)
                set -- "${1%%=*}" "${1#*=}" "${@:2}"
                continue
                ;;
            --*)
                [ -n "${setting[$option]+known}" ] || die 2 "unknown option $1; see spool-cluster help"
                (($# > 1)) || die 2 "$1 needs a value"
                setting[$option]=$2
                shift
                ;;
            *)
                operands+=("$1")
                shift
                continue
                ;;
        esac
        given[$option]=yes
        shift
    done
    setting[s3-endpoint]=${setting[s3-endpoint]%/}
}

state_folder() {
    printf '%s' "${setting[state]:-${XDG_STATE_HOME:-$HOME/.local/state}/spool-cluster/$cluster}"
}

# Secrets of the cluster: the token of scheduler, executors and clients, and the keys of its bucket.
token='' s3_access='' s3_secret=''

# Loads saved settings for options that were not given, and the secrets. Fails if there are no saved settings.
load_state() {
    local folder line key
    folder=$(state_folder)
    [ -r "$folder/settings" ] || return 1
    while IFS= read -r line; do
        key=${line%%=*}
        [ -n "${given[$key]:-}" ] || setting[$key]=${line#*=}
    done <"$folder/settings"
    { read -r token && read -r s3_access && read -r s3_secret; } <"$folder/secrets" || true
}

# Prints the given settings that differ from the saved ones.
changed_settings() {
    local folder line key
    folder=$(state_folder)
    [ -r "$folder/settings" ] || return 0
    while IFS= read -r line; do
        key=${line%%=*}
        [ "${setting[$key]}" = "${line#*=}" ] ||
            printf -- '--%s is %s, but was %s\n' "$key" "${setting[$key]:-nothing}" "${line#*=}"
    done <"$folder/settings"
}

save_state() {
    local folder key
    folder=$(state_folder)
    (
        umask 077
        mkdir -p "$folder"
        for key in "${kept[@]}"; do printf '%s=%s\n' "$key" "${setting[$key]}"; done >"$folder/settings.new"
        printf '%s\n' "$token" "$s3_access" "$s3_secret" >"$folder/secrets.new"
        mv "$folder/settings.new" "$folder/settings"
        mv "$folder/secrets.new" "$folder/secrets"
    )
}

confirm() {
    local answer
    [ "${setting[yes]}" = no ] || return 0
    [ -t 0 ] || die 2 "cannot ask to $1 without a terminal: confirm with --yes"
    read -r -p "$1? [y/N] " answer
    [[ $answer == [yY]* ]] || die 1 "nothing was done"
}
