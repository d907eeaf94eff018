#!/bin/sh
# sh docker/restore.sh FOLDER: what docker/backup.sh wrote, into a stack that holds nothing yet. Secrets may be new ones.
set -eu
[ $# -eq 1 ] || { echo "usage: sh docker/restore.sh FOLDER" >&2; exit 2; }
folder=$1
(cd "$folder" && sha256sum -c SHA256SUMS)
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.."

docker compose up -d --wait postgres
tables=$(docker compose exec -T postgres psql -U preftune -d preftune -Atc \
    "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
[ "$tables" = 0 ] || { echo "this stack's database holds $tables tables already; restore into an empty one" >&2; exit 1; }
docker compose exec -T postgres pg_restore -U preftune -d preftune --no-owner --exit-on-error < "$folder/database.dump"
docker compose run --rm --no-deps -T --entrypoint tar store -C /data -xpf - < "$folder/objects.tar"
docker compose run --rm --no-deps -T --entrypoint tar models -C /var/lib/preftune/models -xpf - < "$folder/models.tar"
docker compose up -d --wait
echo "API keys that were revoked after the backup are live again: preftune keys list, and revoke them."
echo "restored from $folder"
