#!/usr/bin/env bash
# The whole chain on this machine: data, training, export, proof, publishing, serving, asking.
# `make demo` runs it once both environments are there. Ports are free ones, so that a server
# started by `make up` is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
py=.venv/bin/python
server=build/demo/server

began=$SECONDS
step() {
    printf '\n== %s  [%d s]\n' "$*" $((SECONDS - began))
}
stop() {
    $py -m embedded_triton --run-folder "$server" down
}
state() {
    $py -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' \
        "$server/state.json" "$1"
}
trap stop EXIT
stop >/dev/null

step "1/6 data"
if [ -n "${PRESAGE_DATA:-}" ]; then
    echo "PRESAGE_DATA=$PRESAGE_DATA"
elif ! $py -m training data fetch; then
    echo "no network: training on generated data"
fi

step "2/6 train"
$py -m training train all --quick

step "3/6 export, prove, publish"
$py -m export all

step "4/6 serve"
$py -m embedded_triton --run-folder "$server" \
    up --detach --http-port 0 --grpc-port 0 --metrics-port 0

step "5/6 ask and measure"
$py -m loadtest demo-table \
    --url "grpc://$(state grpc_url)" --http-url "http://$(state http_url)"

step "6/6 stop"
stop
trap - EXIT
printf '\ndemo finished in %d s. Now: make up, then .venv/bin/python -m clients health\n' \
    $((SECONDS - began))
