"""Object store in any S3-compatible service, by path-style requests."""

import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import boto3
import botocore.session
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError

from core import outages
from core.storage.object_store import ObjectInfo, ObjectNotFound, StoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

CHUNK_BYTES = 1024 * 1024
_PAGE_KEYS = 1000
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_ALREADY_THERE = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
_TRANSFER = TransferConfig(multipart_threshold=32 * 1024**2, multipart_chunksize=16 * 1024**2, max_concurrency=4)


@dataclass(frozen=True, kw_only=True)
class S3Access:
    bucket: str
    prefix: str = ""
    """Before every key; empty or ending in a slash."""
    endpoint_url: str | None = None
    """None: AWS."""
    public_endpoint_url: str | None = None
    """In presigned addresses; None: `endpoint_url`."""
    access_key_id: str | None = None
    """None: the usual AWS chain (environment, instance role)."""
    secret_access_key: str | None = field(default=None, repr=False)
    read_keys: Callable[[], tuple[str, str]] | None = None
    """Key id and secret as they are now, asked for each request; None: those above, for good."""
    region: str = "us-east-1"


class S3ObjectStore:
    def __init__(self, access: S3Access) -> None:
        self._access = access
        self._client = _client(access, access.endpoint_url)
        public_url = access.public_endpoint_url
        self._signing_client = _client(access, public_url) if public_url else self._client
        self._bucket_lock = threading.Lock()
        self._has_bucket = False

    def put_file(self, key: str, source: Path, *, is_final: bool = False) -> None:
        self._ensure_bucket()
        with _translated():
            self._client.upload_file(str(source), self._access.bucket, self._name(key), Config=_TRANSFER)

    def put_bytes(self, key: str, data: bytes) -> None:
        self._ensure_bucket()
        with _translated():
            self._client.put_object(Bucket=self._access.bucket, Key=self._name(key), Body=data)

    def get_file(self, key: str, target: Path) -> None:
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with self._reading():
                self._fetch(key, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def _fetch(self, key: str, target: Path) -> None:
        """Fetch by one plain request if small: stores differ in ranges behind the end of an object."""
        answer = self._client.get_object(Bucket=self._access.bucket, Key=self._name(key))
        with closing(answer["Body"]) as body:
            if answer["ContentLength"] <= _TRANSFER.multipart_chunksize:
                with target.open("xb") as file:
                    for chunk in body.iter_chunks(CHUNK_BYTES):
                        file.write(chunk)
                return
        self._client.download_file(self._access.bucket, self._name(key), str(target), Config=_TRANSFER)

    def get_bytes(self, key: str) -> bytes:
        with self._reading():
            data: bytes = self._client.get_object(Bucket=self._access.bucket, Key=self._name(key))["Body"].read()
            return data

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        options: dict[str, Any] = {}
        if (start, end) != (0, None):
            last = min(self.stat(key).num_bytes, sys.maxsize if end is None else end) - 1
            if last < start:
                return iter(())  # an empty range cannot be asked for
            options["Range"] = f"bytes={start}-{last}"
        with self._reading():
            answer = self._client.get_object(Bucket=self._access.bucket, Key=self._name(key), **options)
        return _chunks(answer["Body"])

    def stat(self, key: str) -> ObjectInfo:
        with self._reading():
            head = self._client.head_object(Bucket=self._access.bucket, Key=self._name(key))
        return ObjectInfo(key=key, num_bytes=head["ContentLength"], modified_at=head["LastModified"].astimezone(UTC))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if not prefix.endswith("/"):
            raise ValueError(f"a prefix ends in a slash: {prefix!r}")
        return self._list(prefix)

    def delete(self, key: str) -> None:
        self._ensure_bucket()
        with _translated():
            self._client.delete_object(Bucket=self._access.bucket, Key=self._name(key))

    def download_url(self, key: str, *, filename: str, seconds: int) -> str | None:
        disposition = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
        with _translated():
            return self._signing_client.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": self._access.bucket,
                    "Key": self._name(key),
                    "ResponseContentDisposition": disposition,
                },
                ExpiresIn=seconds,
                HttpMethod="GET",
            )

    def check(self) -> None:
        key = f"checks/{uuid.uuid4().hex}"
        self.put_bytes(key, b"ok")
        if self.get_bytes(key) != b"ok":
            raise StoreUnavailable("The object store does not give back what was written.")
        self.delete(key)

    def takes_any_key(self) -> bool:
        stranger = replace(
            self._access, access_key_id="preftune-doctor", secret_access_key=uuid.uuid4().hex, read_keys=None
        )
        client = _client(stranger, self._access.endpoint_url)
        with self._check_object() as name, _translated():
            return _is_served(lambda: client.get_object(Bucket=self._access.bucket, Key=name)["Body"].close())

    def ignores_conditions(self) -> bool:
        with self._check_object() as name, _translated():
            bucket = self._access.bucket
            return _is_served(lambda: self._client.put_object(Bucket=bucket, Key=name, Body=b"no", IfNoneMatch="*"))

    @contextmanager
    def _check_object(self) -> Iterator[str]:
        """Yield the name of an object that is there for as long as the context lasts."""
        key = f"checks/{uuid.uuid4().hex}"
        self.put_bytes(key, b"ok")
        try:
            yield self._name(key)
        finally:
            self.delete(key)

    def remove_leftovers(self, older_than_seconds: float) -> None:
        """Abort multipart uploads that nobody will complete."""
        self._ensure_bucket()
        limit = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        with _translated():
            for upload in self._unfinished_uploads():
                if upload["Initiated"].astimezone(UTC) < limit:
                    self._client.abort_multipart_upload(
                        Bucket=self._access.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    def _unfinished_uploads(self) -> Iterator[Any]:
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._access.bucket, Prefix=self._access.prefix
        )
        try:
            for page in pages:
                yield from page.get("Uploads", [])
        except ClientError as error:
            if _code(error) != "NoSuchUpload":  # rclone's word for a bucket that never had one
                raise

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._ensure_bucket()
        with _translated():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._access.bucket,
                Prefix=f"{self._name(prefix.removesuffix('/'))}/",
                PaginationConfig={"PageSize": _PAGE_KEYS},
            )
            for page in pages:
                for item in page.get("Contents", []):
                    key = item["Key"].removeprefix(self._access.prefix)
                    yield ObjectInfo(key=key, num_bytes=item["Size"], modified_at=item["LastModified"].astimezone(UTC))

    def _name(self, key: str) -> str:
        if any(part in ("", ".", "..") for part in key.split("/")):
            raise ValueError(f"not an object key: {key!r}")
        return self._access.prefix + key

    def _ensure_bucket(self) -> None:
        with self._bucket_lock:
            if not self._has_bucket:
                self._create_bucket()
                self._has_bucket = True

    def _create_bucket(self) -> None:
        with _translated():
            if self._bucket_answers():
                return
            options: dict[str, Any] = {"Bucket": self._access.bucket}
            if self._access.endpoint_url is None and self._access.region != "us-east-1":
                options["CreateBucketConfiguration"] = {"LocationConstraint": self._access.region}
            try:
                self._client.create_bucket(**options)
            except ClientError as error:
                if _code(error) not in _ALREADY_THERE:
                    raise

    def _bucket_answers(self) -> bool:
        try:
            self._client.head_bucket(Bucket=self._access.bucket)
        except ClientError as error:
            # 403: it exists, and these credentials may do less than ask for it.
            return _code(error) == "403"
        return True

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Translate errors, a missing key to ObjectNotFound; a missing bucket is an outage, as no object was lost."""
        with _translated():
            try:
                yield
            except ClientError as error:
                if _code(error) not in _MISSING or not self._bucket_answers():
                    raise
                raise ObjectNotFound("There is no such object in the store.") from None


def _client(access: S3Access, endpoint_url: str | None) -> "S3Client":
    # A session of its own: the default one is shared by all threads and not safe to create clients in.
    plain = botocore.session.get_session()
    if access.access_key_id is not None and access.secret_access_key is not None:
        plain._credentials = _CurrentCredentials(access.access_key_id, access.secret_access_key, access.read_keys)
    session = boto3.session.Session(botocore_session=plain, region_name=access.region)
    client: S3Client = session.client(
        "s3",
        endpoint_url=endpoint_url,
        config=Config(
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 5},
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            max_pool_connections=32,
            # Newer default checksums are refused by several S3-compatible servers; manifests carry our own sha256.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    return client


class _CurrentCredentials(Credentials):  # type: ignore[misc]
    """Keys that may be replaced while the process runs."""

    def __init__(self, key_id: str, secret: str, read_keys: Callable[[], tuple[str, str]] | None) -> None:
        super().__init__(key_id, secret)
        self._read_keys = read_keys

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        if self._read_keys is not None:
            self.access_key, self.secret_key = self._read_keys()
        return ReadOnlyCredentials(self.access_key, self.secret_key, None)


def _chunks(body: Any) -> Iterator[bytes]:
    with _translated():
        try:
            yield from body.iter_chunks(CHUNK_BYTES)
        finally:
            body.close()


def _is_served(request: Callable[[], object]) -> bool:
    """Return whether the store answers with success; a refusal is an answer too. Raises BotoCoreError without one."""
    try:
        request()
    except ClientError:
        return False
    return True


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError, Boto3Error) as error:
        outages.note("object store", error)
        raise StoreUnavailable(_detail_of(error)) from error


def _detail_of(error: Exception) -> str:
    status = (
        error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) if isinstance(error, ClientError) else 0
    )
    if status == 501 or (400 <= status < 500 and status not in (408, 429)):
        return (
            "The object store refuses this service; its operator finds the reason in the log and by `preftune doctor`."
        )
    return "The object store does not answer as it should; try again in a moment."
