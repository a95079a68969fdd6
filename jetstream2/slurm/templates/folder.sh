# --- Functions that find the scheduler through a folder that all nodes see ---

# Checks that the folder exists, and that only this user can write into it.
check_folder() {
    [[ -d $folder ]] ||
        die 3 "folder $folder not found on this node: it must be in a file system that all nodes share"
    [[ -w $folder ]] || die 4 "cannot write into $folder"
    if [[ ! -O $folder ]] || ((8#$(stat --format %a "$folder") & 8#022)); then
        die 4 "other users can write into $folder: run chmod go-w on it"
    fi
}

# Reads the token. Sets SPOOL_TOKEN.
read_token() {
    [[ -s $folder/token ]] || return
    (((8#$(stat --format %a "$folder/token") & 8#077) == 0)) ||
        die 4 "other users can read $folder/token: run chmod 600 on it"
    SPOOL_TOKEN=$(<"$folder/token")
    export SPOOL_TOKEN
}

# Returns whether a scheduler responds at the folder's address. Sets $address to its address, if known, and
# $reason to the cause of a failure.
probe_scheduler() {
    local line lines=("${given_address:-}")
    reason=
    [[ -n ${given_address:-} ]] || mapfile -t lines 2>/dev/null <"$folder/scheduler"
    address=${lines[0]:-}
    if [[ -z $address ]]; then
        reason="$folder/scheduler not found; does the scheduler's job run, and does its node see this folder?"
        return 1
    fi
    if ! read_token; then
        reason="$folder/token not found"
        return 1
    fi
    # The token is passed in the environment, because other users can read command lines.
    # shellcheck disable=SC2016
    line=$(timeout 10 bash -c '
        exec 3<>"/dev/tcp/${1%:*}/${1##*:}" || exit
        printf "%s\r\n" "GET /executors HTTP/1.1" "Host: $1" "Authorization: Bearer $SPOOL_TOKEN" \
            "Connection: close" "" >&3
        head -n 1 <&3' probe "$address" 2>/dev/null 9>&-)
    case $line in
        "HTTP/1.1 200"*) return 0 ;;
        "HTTP/1.1 401"*) reason="the scheduler at $address refuses the token in $folder/token" ;;
        *) reason="no response from $address${lines[1]:+, where a scheduler was started by ${lines[1]}}" ;;
    esac
    return 1
}
