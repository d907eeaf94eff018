"""The same pairs as real programs write them: what the check reads is what was written, row by row.

The libraries are heavy: `make test-writers` installs them beside the project and runs all of this. Each file is made by
the writer's own defaults but for what its name says. With KEEP_WRITTEN=FOLDER the files are kept there; some lie in
`tests/unit/datasets/written`, so that every test run reads their shapes without the writers.
"""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
import pytest
from servers import run_postgresql
from written_pairs import FIELDS, MESSAGES, PLAIN, normalised

from core.datasets.check.check import check_file
from core.datasets.options import CheckOptions
from core.datasets.result import ROWS_FILE, CheckResult
from core.domain.dataset_rows import DatasetKind

Rows = list[dict[str, Any]]
Write = Callable[[Rows, Path], object]
KEEP = os.environ.get("KEEP_WRITTEN")


def library(name: str) -> Any:
    return pytest.importorskip(name, reason="`make test-writers` installs it")


def check(path: Path, **options: Any) -> tuple[CheckResult, Rows]:
    output = path.parent / "checked"
    output.mkdir()
    result = check_file(path, CheckOptions(kind=DatasetKind.PREFERENCE, **options), output)
    rows = output / ROWS_FILE
    return result, [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []


def frame(rows: Rows) -> Any:
    return library("pandas").DataFrame(rows)


def polars_frame(rows: Rows) -> Any:
    return library("polars").DataFrame(rows)


def hub(rows: Rows) -> Any:
    return library("datasets").Dataset.from_list(rows)


def hub_json(rows: Rows, path: Path) -> None:
    """As `load_dataset("json")` types it when one content is a list of parts: contents become JSON."""
    source = path.with_name("source.jsonl")
    parts = [{**rows[0], "prompt": [{"role": "user", "content": [{"type": "text", "text": "In parts."}]}]}, *rows]
    source.write_text("".join(json.dumps(row) + "\n" for row in parts))
    loaded = library("datasets").load_dataset("json", data_files=str(source), cache_dir=str(path.parent / "cache"))
    loaded["train"].select(range(1, len(parts))).to_parquet(path)


def duckdb(select: str, options: str = "") -> Write:
    def write(rows: Rows, path: Path) -> None:
        connection = library("duckdb").connect()
        connection.register("pairs", import_module("pyarrow").Table.from_pylist(rows))
        connection.execute(f"COPY (SELECT {select} FROM pairs) TO '{path}' {options}")

    return write


AS_JSON = ", ".join(f"to_json({name}) AS {name}" for name in FIELDS)
AS_MAPS = ", ".join(
    f"list_transform({name}, lambda m: MAP {{'role': m.role, 'content': m.content}}) AS {name}" for name in FIELDS
)


def spark(save: Callable[[Any, str], None]) -> Write:
    def write(rows: Rows, path: Path) -> None:
        sql = library("pyspark.sql")
        if shutil.which("java") is None:
            pytest.skip("Spark needs Java")
        session = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
        folder = path.parent / "spark"
        save(session.createDataFrame(rows).select(*FIELDS).coalesce(1), str(folder))
        (part,) = [found for found in folder.iterdir() if found.name.startswith("part-")]
        part.rename(path)

    return write


def sqlite(*options: str) -> Write:
    def write(rows: Rows, path: Path) -> None:
        if shutil.which("sqlite3") is None:
            pytest.skip("sqlite3 is not installed")
        database = path.with_name("pairs.db")
        with sqlite3.connect(database) as connection:
            connection.execute("CREATE TABLE pairs (prompt, chosen, rejected)")
            values = [[_text(row[name]) for name in FIELDS] for row in rows]
            connection.executemany("INSERT INTO pairs VALUES (?, ?, ?)", values)
        run(["sqlite3", *options, str(database), "SELECT * FROM pairs"], path)

    return write


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def jq(program: str, *options: str) -> Write:
    def write(rows: Rows, path: Path) -> None:
        if shutil.which("jq") is None:
            pytest.skip("jq is not installed")
        run(["jq", *options, program], path, json.dumps(rows).encode())

    return write


TO_TABLE = (
    '(["prompt", "chosen", "rejected"]), '
    '(.[] | [.prompt, .chosen, .rejected | if type == "string" then . else tojson end])'
)


def run(command: list[str], path: Path, given: bytes | None = None) -> None:
    with path.open("wb") as output:
        subprocess.run(command, input=given, stdout=output, check=True)


def psql(command: str, *options: str) -> Write:
    """`command` over a table whose columns are text, or jsonb where they hold messages."""

    def write(rows: Rows, path: Path) -> None:
        if shutil.which("psql") is None:
            pytest.skip("psql is not installed")
        library("pandas")  # a server for each file takes seconds: with the other writers only
        kind = "text" if isinstance(rows[0]["prompt"], str) else "json"
        with run_postgresql() as server:
            url = server.url("postgres")
            with psycopg.connect(url) as connection:
                connection.execute(f"CREATE TABLE pairs (prompt {kind}, chosen {kind}, rejected {kind})")
                for row in rows:
                    values = [_text(row[name]) for name in FIELDS]
                    connection.execute("INSERT INTO pairs VALUES (%s, %s, %s)", values)
            run(["psql", "-X", *options, url, "-c", command], path)

    return write


def fast_parquet(rows: Rows, path: Path) -> None:
    library("fastparquet").write(str(path), frame(rows))


BOTH: dict[str, Write] = {
    "pandas.csv": lambda rows, path: frame(rows).to_csv(path),
    "pandas-no-index.csv": lambda rows, path: frame(rows).to_csv(path, index=False),
    "pandas.tsv": lambda rows, path: frame(rows).to_csv(path, sep="\t", index=False),
    "pandas-excel-german.csv": lambda rows, path: frame(rows).to_csv(path, sep=";", encoding="utf-8-sig"),
    "pandas-utf16.csv": lambda rows, path: frame(rows).to_csv(path, encoding="utf-16"),
    "pandas.csv.bz2": lambda rows, path: frame(rows).to_csv(path),
    "pandas.csv.xz": lambda rows, path: frame(rows).to_csv(path),
    "pandas.csv.gz": lambda rows, path: frame(rows).to_csv(path),
    "pandas.csv.zst": lambda rows, path: frame(rows).to_csv(path),
    "pandas-records.json": lambda rows, path: frame(rows).to_json(path, orient="records"),
    "pandas-lines.jsonl": lambda rows, path: frame(rows).to_json(path, orient="records", lines=True),
    "pandas.parquet": lambda rows, path: frame(rows).to_parquet(path),
    "polars.ndjson": lambda rows, path: polars_frame(rows).write_ndjson(path),
    "polars.json": lambda rows, path: polars_frame(rows).write_json(path),
    "polars.parquet": lambda rows, path: polars_frame(rows).write_parquet(path),
    "datasets.csv": lambda rows, path: hub(rows).to_csv(path),
    "datasets.jsonl": lambda rows, path: hub(rows).to_json(path),
    "datasets.parquet": lambda rows, path: hub(rows).to_parquet(path),
    "duckdb.csv": duckdb("*"),
    "duckdb.json": duckdb("*"),
    "duckdb-array.json": duckdb("*", "(ARRAY true)"),
    "duckdb.parquet": duckdb("*"),
    "duckdb-json-columns.parquet": duckdb(AS_JSON),
    "duckdb-json-columns.csv": duckdb(AS_JSON),
    "spark.parquet": spark(lambda made, folder: made.write.parquet(folder)),
    "spark.json": spark(lambda made, folder: made.write.json(folder)),
    "sqlite.csv": sqlite("-csv", "-header"),
    "sqlite.json": sqlite("-json"),
    "jq.jsonl": jq(".[]", "-c"),
    "jq.json": jq("."),
    "jq.tsv": jq(f"{TO_TABLE} | @tsv", "-r"),
    "jq.csv": jq(f"{TO_TABLE} | @csv", "-r"),
    "psql-copy.tsv": psql("COPY pairs TO STDOUT (HEADER)"),
    "psql-copy.csv": psql("COPY pairs TO STDOUT (FORMAT csv, HEADER)"),
    "psql.csv": psql("SELECT * FROM pairs", "--csv"),
    "psql-rows.jsonl": psql("SELECT row_to_json(pairs) FROM pairs", "-At"),
    "psql-array.json": psql("SELECT json_agg(pairs) FROM pairs", "-At"),
}
"""File -> what writes plain pairs, or pairs of messages, into it."""
PLAIN_ONLY: dict[str, Write] = {
    "polars.csv": lambda rows, path: polars_frame(rows).write_csv(path),
    "fastparquet.parquet": fast_parquet,
    "spark-quotes-doubled.csv": spark(lambda made, folder: made.write.csv(folder, header=True, escape='"')),
}
MESSAGES_ONLY: dict[str, Write] = {
    "datasets-json.parquet": hub_json,
    "duckdb-maps.parquet": duckdb(AS_MAPS),
    "duckdb-maps.csv": duckdb(AS_MAPS),
    "fastparquet-json.parquet": fast_parquet,
}
CASES = [
    *[(name, write, shape) for name, write in BOTH.items() for shape in ("plain", "messages")],
    *[(name, write, "plain") for name, write in PLAIN_ONLY.items()],
    *[(name, write, "messages") for name, write in MESSAGES_ONLY.items()],
]
SHAPES = {"plain": PLAIN, "messages": MESSAGES}


@pytest.mark.parametrize(("name", "write", "shape"), CASES, ids=[f"{shape}-{name}" for name, _, shape in CASES])
def test_the_rows_are_those_that_were_written(tmp_path: Path, name: str, write: Write, shape: str) -> None:
    path = tmp_path / name
    write(SHAPES[shape], path)
    if KEEP:
        shutil.copy(path, Path(KEEP) / f"{shape}-{name}")
    result, rows = check(path)
    assert result.verdict == "ready", result.refusal
    assert normalised(rows) == SHAPES[shape]


def workbook(rows: Rows, path: Path) -> None:
    pytest.importorskip("openpyxl")
    frame(rows).to_excel(path)


REFUSED: dict[str, tuple[Write, str, str]] = {
    "workbook.xlsx": (workbook, "workbook", "CSV UTF-8"),
    "spark.csv": (spark(lambda made, folder: made.write.csv(folder, header=True)), "", "option('escape'"),
    "variant.parquet": (duckdb("prompt, chosen::VARIANT AS chosen, rejected"), "rows-rejected", "VARIANT"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    write, code, said = REFUSED[name]
    path = tmp_path / name
    write(PLAIN, path)
    result, _ = check(path, format="auto" if code == "workbook" else "explicit")
    assert result.refusal is not None
    assert said in result.refusal.detail
    assert not code or result.refusal.code == code


@pytest.mark.slow
@pytest.mark.parametrize("writer", ["pandas", "polars", "pyarrow"])
def test_one_large_row_group(tmp_path: Path, writer: str) -> None:
    """150,000 pairs by the writer's defaults, checked as the service does."""
    rows = [{"prompt": f"Question {number}?", "chosen": os.urandom(350).hex(), "rejected": os.urandom(350).hex()}
            for number in range(150_000)]  # fmt: skip
    path = tmp_path / "large.parquet"
    if writer == "pyarrow":
        import_module("pyarrow.parquet").write_table(import_module("pyarrow").Table.from_pylist(rows), path)
    elif writer == "pandas":
        frame(rows).to_parquet(path)
    else:
        polars_frame(rows).write_parquet(path)
    checks = import_module("core.datasets.check.check_process")
    result = checks.check_in_child(path, CheckOptions(), tmp_path, timeout_seconds=600, memory_bytes=512 << 20)
    assert result.num_accepted == len(rows)
