#!/bin/sh
# sh docker/backup.sh FOLDER: database, objects and base models of the stack, at rest and so of one moment.
# API and workers stop meanwhile: running jobs go on from their checkpoints afterwards. Secrets are not in it.
set -eu
[ $# -eq 1 ] || { echo "usage: sh docker/backup.sh FOLDER" >&2; exit 2; }
folder=$1
cd "$(dirname "$0")/.."
mkdir -p "$folder"
chmod 700 "$folder"
running=$(docker compose ps --services --status running)
# What was up is brought up again, and nothing else: a stack that is down on purpose stays down.
if [ -n "$running" ]; then trap 'docker compose up -d --wait $running >/dev/null' EXIT; else trap 'docker compose stop postgres store >/dev/null' EXIT; fi

busy=$(echo "$running" | grep -vx -e postgres -e store || true)
[ -z "$busy" ] || docker compose stop $busy # without names it would stop everything
docker compose up -d --wait postgres
docker compose exec -T postgres pg_dump -U preftune -Fc preftune > "$folder/database.dump"
docker compose stop store
docker compose run --rm --no-deps -T --entrypoint tar store -C /data -cf - . > "$folder/objects.tar"
docker compose run --rm --no-deps -T --entrypoint tar models -C /var/lib/preftune/models -cf - . > "$folder/models.tar"
(cd "$folder" && sha256sum database.dump objects.tar models.tar > SHA256SUMS)
echo "backed up to $folder"
