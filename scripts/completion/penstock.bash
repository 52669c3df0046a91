# Completion of penstock for bash. Needs nothing but bash; scripts/check-options holds it to --help.

_penstock_words() {
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}

_penstock_files() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
}

# Directories and files whose name ends in .lua.
_penstock_policies() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -d -- "$cur"; compgen -f -X '!*.lua' -- "$cur")
}

# Completes the value of option $1; fails when $1 takes none.
_penstock_value() {
    case $1 in
    -p | --policy) _penstock_policies ;;
    --accept-proxy-others) _penstock_words "accept deny" ;;
    --send-proxy) _penstock_words "v1 v2" ;;
    --via) _penstock_words "socks5:// http:// socks5+tls:// https://" ;;
    --tls-client-cert) _penstock_words "none request require" ;;
    --tls-min | --tls-dial-min) _penstock_words "1.2 1.3" ;;
    --tls-alpn | --tls-dial-alpn) _penstock_words "h2 http/1.1 h2,http/1.1" ;;
    --tls-cert | --tls-key | --tls-client-ca | --tls-ca | --tls-dial-cert | --tls-dial-key | --tls-via-ca)
        _penstock_files
        ;;
    --user) mapfile -t COMPREPLY < <(compgen -u -- "$cur") ;;
    --lua-modules) _penstock_words "cjson lpeg cjson,lpeg" ;;
    --mode) _penstock_words "auto copy splice" ;;
    --workers) _penstock_words "auto 1 2 4 8" ;;
    --log) _penstock_words "error warn info debug" ;;
    --log-format) _penstock_words "text json journal" ;;
    --access-log)
        _penstock_files
        [[ -z $cur || off == "$cur"* ]] && COMPREPLY+=(off)
        [[ -z $cur || $cur == - ]] && COMPREPLY+=(-)
        ;;
    --allow) _penstock_words "any" ;;
    --log-file | --pid-file | --auth | --admin-token-file) _penstock_files ;;
    --admin) _penstock_words "unix:/run/penstock/admin.sock 127.0.0.1:9180" ;;
    --connect-timeout | --handshake-timeout | --first-byte-timeout | --idle-timeout | \
        --half-close-timeout | --life-timeout | --drain-timeout | --upgrade-timeout | --keepalive) _penstock_words "5s 30s 2m 10m 1h" ;;
    --rate-up | --rate-down | --rcvbuf | --sndbuf) _penstock_words "64K 256K 1M 16M" ;;
    --max-conns | --max-versions | --max-conns-listener | --max-per-ip | --max-rate | --seed | --backlog | --spin | --gather | \
        --bind-source | --resolver | --max-handshakes | --tls-name | --tls-pin | --tls-sni) ;; # a number or an address: nothing to offer
    *) return 1 ;;
    esac
}

_penstock() {
    local cur prev line
    COMPREPLY=()
    # Words as the shell splits them, not as readline does, which breaks at ':' and '='.
    line=${COMP_LINE:0:COMP_POINT}
    cur=${line##*[[:space:]]}
    line=${line%"$cur"}
    line=${line%"${line##*[![:space:]]}"}
    prev=${line##*[[:space:]]}

    if [[ $line =~ ^[^[:space:]]+[[:space:]]+test($|[[:space:]]) ]]; then
        case $prev in
        --seed | --filter) ;;
        --output) _penstock_words "plainTerminal utfTerminal TAP json junit gtest" ;;
        *)
            if [[ $cur == -* ]]; then
                _penstock_words "--filter --output --seed --help"
            else
                _penstock_policies
            fi
            ;;
        esac
        return
    fi
    if [[ $line =~ ^[^[:space:]]+[[:space:]]+ctl($|[[:space:]]) ]]; then
        case $prev in
        --token-file) _penstock_files ;;
        --listener | --client | --tag | --min-age | --min-rate | --after | --limit | --max-wait | --over | --prefix | --ttl | --timeout) ;;
        --worker) _penstock_words "0 all" ;;
        --type) _penstock_words "string number boolean" ;;
        --admin) _penstock_words "unix:/run/penstock/admin.sock 127.0.0.1:9180" ;;
        log) _penstock_words "error warn info debug" ;;
        *)
            if [[ $cur == -* ]]; then
                _penstock_words "--admin --token-file --listener --client --tag --min-age --min-rate --rates --after --limit --all \
                    --over --prefix --type --ttl --worker --timeout --max-wait --json --watch --help"
            else
                _penstock_words "health version listeners conns kill drain up reload upgrade pools server stores store buckets stats config \
                    log lua metrics"
            fi
            ;;
        esac
        return
    fi
    if [[ $line =~ [[:space:]](run|check)$ && $cur != -* ]]; then
        _penstock_policies
        return
    fi
    if [[ $cur != -* && ! $line =~ [[:space:]] ]]; then
        _penstock_words "run check test ctl socks connect"
        return
    fi
    if [[ $cur == --*=* ]]; then
        prev=${cur%%=*}
        cur=${cur#*=}
        _penstock_value "$prev"
        return
    fi
    _penstock_value "$prev" && return
    case $cur in
    -*)
        _penstock_words "-p --policy --watch --jit --unsafe-lua --lua-modules --seed --allow --auth \
            --max-conns --max-versions --max-conns-listener --max-per-ip --max-rate --rate-up --rate-down \
            --connect-timeout --handshake-timeout --first-byte-timeout --idle-timeout \
            --half-close-timeout --life-timeout --drain-timeout --upgrade-timeout \
            --tls-cert --tls-key --tls-sni --tls-client-ca --tls-client-cert --tls-alpn --tls-min --max-handshakes \
            --tls --tls-ca --tls-name --tls-pin --tls-insecure --tls-dial-cert --tls-dial-key --tls-dial-alpn \
            --tls-dial-min --tls-via-ca \
            --bind-source --via --accept-proxy --accept-proxy-others --send-proxy --resolver --nodelay --no-nodelay \
            --keepalive --rcvbuf --sndbuf --backlog \
            --user --no-sandbox --core-dumps --workers --mode --spin --gather --pid-file \
            --admin --admin-token-file --admin-no-token --admin-lua \
            --log --log-format --log-file --access-log \
            -V --version -h --help"
        ;;
    unix:*)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "${cur#unix:}")
        ;;
    esac
}

complete -F _penstock penstock
