"""TensorBoard's event files: the bytes that tensorboardX writes, and what is in which file."""

import struct
from datetime import UTC, datetime
from pathlib import Path

from core.domain.jobs.job_state import Stage
from core.services.views import MetricPointView
from worker.artifact.tensorboard import FILE_NAME, event, masked_crc, record, write_event_files

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GOLDEN = bytes.fromhex(
    "1900000000000000" "8bf10828" "09000000000000f83f" "1003" "2a0c0a0a0a03612f62" "150000003f" "4431a8bc"
)  # fmt: skip
"""`RecordWriter.write(Event(wall_time=1.5, step=3, summary: a/b = 0.5))` of tensorboardX 2.6.5"""


def bodies(path: Path) -> list[bytes]:
    """The records of a file, their checksums checked."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        body = data[12 : 12 + length]
        assert struct.unpack("<I", data[8:12])[0] == masked_crc(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked_crc(body)
        found.append(body)
        data = data[16 + length :]
    return found


def point(step: int, split: str = "train", **values: float | None) -> MetricPointView:
    return MetricPointView(seq=step + 1, stage=Stage.DPO, split=split, step=step, epoch=0.0, at=AT, values=values)


def test_records_are_those_of_another_writer() -> None:
    assert record(event(1.5, 3, {"a/b": 0.5})) == GOLDEN


def test_the_checksum_is_that_of_the_standard() -> None:
    """CRC-32C of "123456789" is e3069283 (RFC 3720's polynomial, the usual check value)."""
    crc = 0xE3069283
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_each_stage_and_split_is_a_run(tmp_path: Path) -> None:
    points = [point(1, loss=0.5), point(0, "validation", loss=0.25), point(300, loss=None), point(301, loss=1e300)]
    for _ in range(2):
        write_event_files(points, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dpo-train", "dpo-validation"]
    first, *events = bodies(tmp_path / "dpo-train" / FILE_NAME)
    assert first.endswith(b"\x1a\x0dbrain.Event:2")
    assert events[0] == event(AT.timestamp(), 1, {"loss": 0.5})
    assert b"\x10\xac\x02" in events[1]  # 300 as a varint
    assert events[1].endswith(b"\x15" + struct.pack("<f", float("nan")))
    assert events[2].endswith(b"\x15" + struct.pack("<f", 3.4e38))
    assert len(bodies(tmp_path / "dpo-validation" / FILE_NAME)) == 2
