#!/usr/bin/env bash
# Gets the Debian programs that tests run: prometheus with promtool, the Pushgateway, Alertmanager with
# amtool, rsyslog with its Elasticsearch output, PostgreSQL, and Chromium with Chinese characters.
# Without them, or a way to get them, those tests skip by name.
set -euo pipefail

missing=()
for package in prometheus prometheus-pushgateway prometheus-alertmanager; do
    command -v "$package" >/dev/null || missing+=("$package")
done
# A daemon's folder need not be on PATH, and the output is a module without a command.
PATH=$PATH:/usr/sbin command -v rsyslogd >/dev/null || missing+=(rsyslog)
compgen -G '/usr/lib/*/rsyslog/omelasticsearch.so' >/dev/null || missing+=(rsyslog-elasticsearch)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
command -v chromium >/dev/null || missing+=(chromium)
compgen -G '/usr/share/fonts/opentype/noto/NotoSansCJK*' >/dev/null || missing+=(fonts-noto-cjk)
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "   tests that need them will skip; next: sudo apt-get install ${missing[*]}" >&2
    exit 0
fi

# The packages would start their servers at once, on every interface; the tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
echo "   installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update >/dev/null || true
install=(apt-get -qq install -y --no-install-recommends)
# One package that cannot be had must not cost the others.
"${install[@]}" "${missing[@]}" >/dev/null || for package in "${missing[@]}"; do
    "${install[@]}" "$package" >/dev/null || echo "   not installed, its tests will skip: $package" >&2
done
