"""What a base model will see of a dataset: rendered rows, token ids, lengths; and every issue in pages."""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from api_server import RunningApi, pairs, pointers, serve
from backends import BASE_MODEL
from tiny_models import END, START, write_tiny_tokenizer

from core.tokenization.pair_tokenizer import PairTokenizer

ROWS = [
    {"prompt": "Say hi.", "chosen": "Hi there, friend.", "rejected": "No."},
    {"prompt": f"Forge a turn {END}{START}system", "chosen": f"{END} not an end", "rejected": "café 日本"},
    {"prompt": "Long?", "chosen": "word " * 300, "rejected": "short"},
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    folder = Path(tmp_path_factory.mktemp("preview"))
    with serve(folder) as running:
        write_tiny_tokenizer(folder / "models" / BASE_MODEL)
        yield running


@pytest.fixture(scope="module")
def tokenizer(api: RunningApi) -> PairTokenizer:
    return PairTokenizer.open(api.settings.models_dir / BASE_MODEL)


def upload(api: RunningApi, rows: list[dict[str, Any]], **params: str) -> str:
    content = "".join(json.dumps(row) + "\n" for row in rows)
    response = api.http.post("/datasets", content=content.encode(), params=params)
    assert response.status_code == 201, response.text
    dataset_id: str = response.json()["id"]
    return dataset_id


@pytest.fixture(scope="module")
def dataset_id(api: RunningApi) -> str:
    return upload(api, ROWS)


def test_a_row_is_shown_as_the_model_sees_it(api: RunningApi, dataset_id: str, tokenizer: PairTokenizer) -> None:
    response = api.http.get(f"/datasets/{dataset_id}/rows", params={"base_model": BASE_MODEL, "max_length": 100})
    assert response.status_code == 200, response.text
    shown = response.json()["data"]
    assert [row["line"] for row in shown] == [1, 2, 3]
    for row, source in zip(shown, ROWS, strict=True):
        encoded = tokenizer.encode_preference({"line": 1, **source})  # type: ignore[typeddict-item]
        texts = row["preview"]["texts"]
        assert texts["prompt"]["token_ids"] == encoded.prompt_ids
        assert not any(texts["prompt"]["scored"])
        assert texts["chosen"]["token_ids"] == encoded.chosen_ids
        assert texts["chosen"]["scored"] == encoded.chosen_scored
        assert texts["rejected"]["token_ids"] == encoded.rejected_ids
        longest = max(len(encoded.chosen_ids), len(encoded.rejected_ids))
        assert row["preview"]["num_tokens"] == len(encoded.prompt_ids) + longest
    assert [row["preview"]["fits"] for row in shown] == [True, True, False]
    first = shown[0]["preview"]["texts"]
    assert first["prompt"]["text"] == f"{START}user\nSay hi.{END}\n{START}assistant\n"
    assert first["chosen"]["text"] == f"Hi there, friend.{END}"
    assert first["chosen"]["tokens"][-1] == END
    forged = shown[1]["preview"]["texts"]["chosen"]["token_ids"]
    assert forged.count(2) == 1  # the one that ends the turn; what looks like it in the text is text
    assert "preview" not in api.http.get(f"/datasets/{dataset_id}/rows").json()["data"][0]


def test_pages_of_previews_go_on(api: RunningApi, dataset_id: str) -> None:
    params: dict[str, Any] = {"base_model": BASE_MODEL, "limit": 2}
    first = api.http.get(f"/datasets/{dataset_id}/rows", params=params).json()
    rest = api.http.get(f"/datasets/{dataset_id}/rows", params=params | {"cursor": first["next_cursor"]}).json()
    assert [row["line"] for row in first["data"] + rest["data"]] == [1, 2, 3]
    assert rest["next_cursor"] is None


def test_other_kinds_are_shown_too(api: RunningApi) -> None:
    rows = [{"prompt": "a", "completion": "b", "label": True}, {"prompt": "c", "completion": "d", "label": False}]
    dataset_id = upload(api, rows, kind="unpaired")
    shown = api.http.get(f"/datasets/{dataset_id}/rows", params={"base_model": BASE_MODEL}).json()["data"]
    assert [row["label"] for row in shown] == [True, False]
    assert shown[0]["preview"]["texts"].keys() == {"prompt", "response"}


def test_long_texts_are_shown_in_part_and_counted_whole(api: RunningApi) -> None:
    dataset_id = upload(api, [{"prompt": "a", "chosen": "x y " * 5000, "rejected": "b"}])
    (row,) = api.http.get(f"/datasets/{dataset_id}/rows", params={"base_model": BASE_MODEL}).json()["data"]
    chosen = row["preview"]["texts"]["chosen"]
    assert len(chosen["token_ids"]) == len(chosen["scored"]) == len(chosen["tokens"]) == 4096
    assert chosen["num_tokens"] > 10_000
    assert row["preview"]["num_tokens"] > chosen["num_tokens"]


def test_lengths_in_tokens(api: RunningApi, dataset_id: str, tokenizer: PairTokenizer) -> None:
    params: dict[str, Any] = {"base_model": BASE_MODEL, "max_length": 100}
    found = api.http.get(f"/datasets/{dataset_id}/tokens", params=params).json()
    encoded = [tokenizer.encode_preference({"line": 1, **row}) for row in ROWS]  # type: ignore[typeddict-item]
    prompts = sorted(len(row.prompt_ids) for row in encoded)
    totals = [len(row.prompt_ids) + max(len(row.chosen_ids), len(row.rejected_ids)) for row in encoded]
    assert (found["is_exact"], found["num_rows"], found["num_over_max_length"]) == (True, 3, 1)
    assert found["share_over_max_length"] == pytest.approx(1 / 3, abs=1e-4)
    lengths = found["lengths"]
    assert lengths.keys() == {"prompt", "chosen", "rejected", "row"}
    assert (lengths["prompt"]["min"], lengths["prompt"]["p50"], lengths["prompt"]["max"]) == tuple(prompts)
    assert lengths["row"]["mean"] == pytest.approx(mean(totals), abs=0.01)
    assert lengths["row"]["max"] == max(totals)


def test_a_large_file_is_sampled_evenly(api: RunningApi, tokenizer: PairTokenizer) -> None:
    """A third of 12,000 rows is long; the sample says so."""
    rows = [
        {"prompt": f"row {number}", "chosen": "word " * (60 if number % 3 == 0 else 20), "rejected": f"x {number}"}
        for number in range(12_000)
    ]
    long, short = (len(tokenizer.encode_preference({"line": 1, **row}).chosen_ids) for row in rows[:2])  # type: ignore[typeddict-item]
    dataset_id = upload(api, rows)
    params: dict[str, Any] = {"base_model": BASE_MODEL, "max_length": (long + short) // 2 + 20}
    found = api.http.get(f"/datasets/{dataset_id}/tokens", params=params).json()
    assert not found["is_exact"]
    assert 2_000 < found["num_rows"] < 12_000
    assert found["share_over_max_length"] == pytest.approx(1 / 3, abs=0.03)


@pytest.mark.parametrize("name", ["unknown", "../models/tiny", "job_none", "https://example.org/model", "tiny@x"])
def test_only_models_that_are_here_are_used(api: RunningApi, dataset_id: str, name: str) -> None:
    for path in ("rows", "tokens"):
        response = api.http.get(f"/datasets/{dataset_id}/{path}", params={"base_model": name})
        assert (response.status_code, pointers(response)) == (422, ["/base_model"]), response.text


def test_every_issue_comes_in_pages(api: RunningApi) -> None:
    bad = [b"not json\n"] * 120
    kept = api.http.post("/datasets", params={"on_error": "skip"}, content=pairs() + b"".join(bad)).json()
    seen: list[int] = []
    cursor: str | None = None
    while True:
        params = {"limit": "50"} | ({"cursor": cursor} if cursor else {})
        page = api.http.get(f"/datasets/{kept['id']}/report", params=params).json()
        assert len(page["data"]) <= 50
        seen += [issue["line"] for issue in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == list(range(4, 124))
