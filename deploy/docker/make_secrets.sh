#!/usr/bin/env bash
# Makes the secrets that docker-compose.yml names, each a file, each only where there is none:
#   bash deploy/docker/make_secrets.sh [FOLDER]
# The folder is for its owner alone. The files in it are readable: compose mounts them as they are
# into containers that run as other users.
set -euo pipefail
folder=${1:-$(dirname "$0")/secrets}

umask 077
mkdir -p "$folder"
chmod 700 "$folder"

random() {
    # 32 letters and digits: nothing that a URL would need to escape.
    head -c 512 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9' | cut -c 1-32
}

keep() {
    if [ -s "$folder/$1" ]; then
        echo "kept   $folder/$1"
        return
    fi
    printf '%s\n' "$2" >"$folder/$1.partial"
    chmod 644 "$folder/$1.partial"
    mv "$folder/$1.partial" "$folder/$1"
    echo "made   $folder/$1"
}

keep postgres_password "$(random)"
keep grafana_admin_password "$(random)"
# Beside the password because the service reads it as one setting; of a database of your own, write it.
keep presage_jobs_database_url \
    "postgresql://presage:$(cat "$folder/postgres_password")@postgres:5432/presage"
