#!/usr/bin/env bash
# Finds CPython 3.11 or 3.12, gets the two Debian packages it needs when it may (as root), and makes
# the environment named by the first argument.
set -euo pipefail
target=$1

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null
}

apt_install() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "   installing Debian packages: $*"
        DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null || true
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
    else
        echo "error: missing Debian packages; next: sudo apt-get install $*" >&2
        return 1
    fi
}

python=
for candidate in ${PYTHON:-} python3.11 python3.12 python3; do
    path=$(command -v "$candidate" 2>/dev/null) || continue
    if fits "$path"; then
        python=$path
        break
    fi
done
if [ -z "$python" ]; then
    echo "error: no CPython 3.11 or 3.12 on PATH; next: apt-get install python3, or make PYTHON=/path/to/python3.11 …" >&2
    exit 1
fi

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install "python${version}-venv"

# tritonserver's Python stub is linked against the shared interpreter library.
if ! "$python" -c '
import ctypes, sysconfig, pathlib, sys
name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
try:
    ctypes.CDLL(str(pathlib.Path(sysconfig.get_config_var("LIBDIR"), name)))
except OSError:
    ctypes.CDLL(name)
' 2>/dev/null; then
    apt_install "libpython${version}"
fi

if [ ! -x "$target/bin/python" ] || ! fits "$target/bin/python"; then
    "$python" -m venv --clear "$target"
fi
