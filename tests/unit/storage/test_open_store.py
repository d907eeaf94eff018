from pathlib import Path

import pytest

from core.settings import SettingsError, load_settings
from core.storage.local import LocalObjectStore
from core.storage.open_store import open_store
from core.storage.s3 import S3ObjectStore


def test_the_default_is_a_folder_in_the_data_directory(tmp_path: Path) -> None:
    store = open_store(load_settings(data_dir=tmp_path / "with space"))
    assert isinstance(store, LocalObjectStore)
    store.put_bytes("a", b"x")
    assert (tmp_path / "with space" / "objects" / "a").read_bytes() == b"x"


def test_an_s3_url_names_bucket_and_prefix() -> None:
    """Without asking the server, which may start later."""
    store = open_store(
        load_settings(
            storage_url="s3://bucket/a/b/",
            s3_endpoint_url="http://127.0.0.1:1",
            s3_access_key_id="k",
            s3_secret_access_key="s",
        )
    )
    assert isinstance(store, S3ObjectStore)
    assert (store._access.bucket, store._access.prefix) == ("bucket", "a/b/")
    assert "secret" not in repr(store._access) or "'s'" not in repr(store._access)


@pytest.mark.parametrize("url", ["http://x/y", "file://other-host/x", "s3:///x", "relative/path"])
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="PREFTUNE_STORAGE_URL"):
        open_store(load_settings(storage_url=url))


def test_half_a_credential_is_refused() -> None:
    with pytest.raises(SettingsError, match="set both or none"):
        open_store(load_settings(storage_url="s3://bucket", s3_access_key_id="k"))
