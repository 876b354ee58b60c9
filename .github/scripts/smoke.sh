#!/usr/bin/env bash
# Asks the model server of every host of a group what it serves, through SSH: its ports are on the
# host's loopback. `python -m clients health` fails where no model is ready.
#   smoke.sh INVENTORY GROUP
set -euo pipefail
inventory=$1 group=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
python=$root/.venv/bin/python

# name, address, user (or -), local port
hosts=$(ansible-inventory -i "$inventory" --list | "$python" -c '
import json, sys

inventory, group = json.load(sys.stdin), sys.argv[1]
variables = inventory.get("_meta", {}).get("hostvars", {})


def hosts_of(name):
    row = inventory.get(name, {})
    yield from row.get("hosts", [])
    for child in row.get("children", []):
        yield from hosts_of(child)


for index, host in enumerate(dict.fromkeys(hosts_of(group))):
    own = variables.get(host, {})
    print(host, own.get("ansible_host", host), own.get("ansible_user", "-"), 19001 + index)
' "$group")
if [ -z "$hosts" ]; then
    echo "error: no hosts in group $group of $inventory" >&2
    exit 1
fi

tunnels=()
# shellcheck disable=SC2329  # by the trap
close_tunnels() {
    local pid
    for pid in "${tunnels[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
}
trap close_tunnels EXIT
failed=0
said=$(mktemp)
while read -r name address user port; do
    to=$address
    [ "$user" = - ] || to=$user@$address
    ssh -N -o BatchMode=yes -o ExitOnForwardFailure=yes -o ConnectTimeout=20 \
        -L "127.0.0.1:$port:127.0.0.1:9001" "$to" </dev/null &
    tunnels+=($!)
    answered=
    for _ in $(seq 30); do
        if (cd "$root" && "$python" -m clients health --deadline-seconds 10 \
            --url "grpc://127.0.0.1:$port" </dev/null >"$said" 2>&1); then
            answered=yes
            break
        fi
        kill -0 "${tunnels[-1]}" 2>/dev/null || break
        sleep 2
    done
    echo "== $name"
    cat "$said"
    if [ -z "$answered" ]; then
        echo "error: $name does not serve" >&2
        failed=1
    fi
done <<<"$hosts"
exit $failed
