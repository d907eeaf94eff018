#!/bin/sh
# sh docker/backup.sh FOLDER: database, objects and base models of the stack, at rest and so of one moment.
# API and workers stop meanwhile: running jobs go on from their checkpoints afterwards. Secrets are not in it.
set -eu
[ $# -eq 1 ] || { echo "usage: sh docker/backup.sh FOLDER" >&2; exit 2; }
folder=$1
cd "$(dirname "$0")/.."
mkdir -p "$folder"
chmod 700 "$folder"
trap 'docker compose up -d --wait >/dev/null' EXIT

docker compose stop $(docker compose ps --services | grep -vx -e postgres -e store)
docker compose exec -T postgres pg_dump -U preftune -Fc preftune > "$folder/database.dump"
docker compose stop store
docker compose run --rm --no-deps -T --entrypoint tar store -C /data -cf - . > "$folder/objects.tar"
docker compose run --rm --no-deps -T --entrypoint tar models -C /var/lib/preftune/models -cf - . > "$folder/models.tar"
(cd "$folder" && sha256sum database.dump objects.tar models.tar > SHA256SUMS)
echo "backed up to $folder"
