"""Choice of the object store by the settings."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from core.settings import Settings, SettingsError
from core.storage.local import LocalObjectStore
from core.storage.object_store import ObjectStore


def open_store(settings: Settings) -> ObjectStore:
    """Open the store. Raises SettingsError for an unknown URL, StoreUnavailable for an unusable directory.

    An S3 store is not asked for anything yet: a service may start before its store does.
    """
    url = urlsplit(settings.effective_storage_url)
    if url.scheme == "file" and url.netloc in ("", "localhost") and url.path.startswith("/"):
        return LocalObjectStore(Path(unquote(url.path)))
    if url.scheme == "s3" and url.netloc:
        return _open_s3(settings, url.netloc, url.path.strip("/"))
    raise SettingsError("PREFTUNE_STORAGE_URL: must be file:///… or s3://bucket/prefix")


def _open_s3(settings: Settings, bucket: str, prefix: str) -> ObjectStore:
    from core.storage.s3 import S3Access, S3ObjectStore  # noqa: PLC0415 - see LOCAL_IMPORTS

    key_id, secret = settings.s3_access_key_id, settings.s3_secret_access_key
    if (key_id is None) != (secret is None):
        raise SettingsError("PREFTUNE_S3_ACCESS_KEY_ID and PREFTUNE_S3_SECRET_ACCESS_KEY: set both or none")
    access = S3Access(
        bucket=bucket,
        prefix=f"{prefix}/" if prefix else "",
        endpoint_url=settings.s3_endpoint_url,
        public_endpoint_url=settings.s3_public_endpoint_url,
        access_key_id=key_id.get_secret_value() if key_id else None,
        secret_access_key=secret.get_secret_value() if secret else None,
        read_keys=lambda: (settings.current("s3_access_key_id") or "", settings.current("s3_secret_access_key") or ""),
        region=settings.s3_region,
    )
    return S3ObjectStore(access)
