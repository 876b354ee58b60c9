#!/usr/bin/env bash
# Gets the container engine with which `make slow` builds and runs the images: podman, what it needs to
# run containers on a network of their own, and debootstrap for a base where none can be pulled. About
# 150 MB. Without them, or a way to get them, those tests skip by name.
set -euo pipefail

missing=()
for package in podman runc catatonit debootstrap; do
    PATH=$PATH:/usr/sbin command -v "$package" >/dev/null || missing+=("$package")
done
for helper in netavark aardvark-dns; do
    [ -x "/usr/lib/podman/$helper" ] || command -v "$helper" >/dev/null || missing+=("$helper")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "   tests that need them will skip; next: sudo apt-get install ${missing[*]}" >&2
    exit 0
fi
echo "   installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update >/dev/null || true
apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null ||
    echo "   not installed, their tests will skip: ${missing[*]}" >&2
