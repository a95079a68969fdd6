# --- How executors and clients find the scheduler: by a folder that all nodes see ---

# Is there such a folder, and is what is in it ours?
check_folder() {
    [[ -d $folder ]] || die 3 "there is no folder $folder on this node: it has to be in a file system that all nodes share"
    [[ -w $folder ]] || die 4 "cannot write into $folder"
    if [[ ! -O $folder ]] || ((8#$(stat --format %a "$folder") & 8#022)); then
        die 4 "others may write into $folder: chmod go-w it"
    fi
}

# Reads the token. Sets SPOOL_TOKEN.
read_token() {
    [[ -s $folder/token ]] || return
    (((8#$(stat --format %a "$folder/token") & 8#077) == 0)) || die 4 "others may read $folder/token: chmod 600 it"
    SPOOL_TOKEN=$(<"$folder/token")
    export SPOOL_TOKEN
}

# Does a scheduler work for this folder? Sets $address to where, as far as it is told, and $why to why it does not.
look() {
    local line lines=("${given:-}")
    why=
    [[ -n ${given:-} ]] || mapfile -t lines 2>/dev/null <"$folder/scheduler"
    address=${lines[0]:-}
    if [[ -z $address ]]; then
        why="there is no $folder/scheduler; does the scheduler's job run, and does its node see the same folder?"
        return 1
    fi
    if ! read_token; then
        why="there is no $folder/token"
        return 1
    fi
    # The token goes through the environment: command lines are seen by others.
    # shellcheck disable=SC2016
    line=$(timeout 10 bash -c '
        exec 3<>"/dev/tcp/${1%:*}/${1##*:}" || exit
        printf "%s\r\n" "GET /executors HTTP/1.1" "Host: $1" "Authorization: Bearer $SPOOL_TOKEN" "Connection: close" "" >&3
        head -n 1 <&3' look "$address" 2>/dev/null 9>&-)
    case $line in
        "HTTP/1.1 200"*) return 0 ;;
        "HTTP/1.1 401"*) why="the scheduler at $address does not take the token in $folder/token" ;;
        *) why="nothing answers at $address${lines[1]:+, where a scheduler was started by ${lines[1]}}" ;;
    esac
    return 1
}
