#!/bin/sh
# Makes the secrets that docker-compose.yml mounts as files: random ones, or what .env or the environment sets.
# Files that are there stay as they are. Prints the key of the API once, when it makes it.
set -eu
cd "$(dirname "$0")/.."

setting() { # NAME: from the environment, else from .env
    eval "value=\${$1:-}"
    if [ -z "$value" ] && [ -f .env ]; then
        value=$(sed -n "s/^$1=//p" .env | tail -n 1 | sed "s/^[\"']//; s/[\"']\$//")
    fi
    printf %s "$value"
}

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

folder=$(setting SECRETS_DIR)
folder=${folder:-./secrets}
mkdir -p "$folder"
chmod 700 "$folder" # who may enter it, decides; the files are read by users of several containers

make_secret() { # file NAME
    if [ -s "$folder/$1" ]; then
        return
    fi
    given=$(setting "$2")
    printf '%s\n' "${given:-$(random)}" > "$folder/$1"
    chmod 644 "$folder/$1"
    if [ "$1" = api_key ]; then
        echo "The key of the API, kept in $folder/api_key:"
        cat "$folder/$1"
    fi
}

make_secret api_key PREFTUNE_API_KEY
make_secret postgres_password POSTGRES_PASSWORD
make_secret s3_secret_access_key S3_SECRET_ACCESS_KEY
make_secret runner_secret RUNNER_SECRET
