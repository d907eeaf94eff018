"""Curves as TensorBoard event files: `tensorboard --logdir <artifact>/tensorboard`.

One run for each stage and split, with the metric names as tags. The format is small and does not change: records of a
length and a body with their checksums, each body an `Event` message of protocol buffers. Written here, because the
libraries that write it load torch, which a supervisor must not. Times are those of the points, so that the same points
make the same files.
"""

import math
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from core.services.curves.chosen_points import choose_points
from core.services.views import MetricPointView

FILE_NAME = "events.out.tfevents.0.preftune"
MAX_EVENTS = 20_000
"""Points of one run; a longer one is thinned, with the extremes of its curves."""
_VERSION = b"brain.Event:2"


def write_event_files(points: Iterable[MetricPointView], directory: Path) -> None:
    """Write the event files, replacing those of an earlier try."""
    runs: dict[str, list[MetricPointView]] = {}
    for point in points:
        runs.setdefault(f"{point.stage.value}-{point.split}", []).append(point)
    for name, run in runs.items():
        path = directory / name / FILE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_file(choose_points(run, MAX_EVENTS)))


def _file(run: Sequence[MetricPointView]) -> bytes:
    first = _wall_time(run[0].at.timestamp()) + _bytes_field(3, _VERSION)
    return record(first) + b"".join(record(event(point.at.timestamp(), point.step, point.values)) for point in run)


def event(wall_time: float, step: int, values: dict[str, float | None]) -> bytes:
    """Encode an `Event` message with a scalar for each value; null becomes NaN."""
    summary = b"".join(
        _bytes_field(1, _bytes_field(1, tag.encode()) + b"\x15" + struct.pack("<f", _finite(value)))
        for tag, value in values.items()
    )
    return _wall_time(wall_time) + b"\x10" + _varint(step) + _bytes_field(5, summary)


def record(body: bytes) -> bytes:
    """Frame data as a TFRecord with length and checksums."""
    length = struct.pack("<Q", len(body))
    return length + struct.pack("<I", masked_crc(length)) + body + struct.pack("<I", masked_crc(body))


def masked_crc(data: bytes) -> int:
    """CRC-32C (RFC 3720, B.4), rotated and shifted as TFRecord requires."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_of_byte(crc: int) -> int:
    for _ in range(8):
        crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc


_TABLE = [_crc_of_byte(byte) for byte in range(256)]


def _wall_time(seconds: float) -> bytes:
    return b"\x09" + struct.pack("<d", seconds)


def _bytes_field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _finite(value: float | None) -> float:
    """Limit a value to the range of float32, which the format uses."""
    if value is None:
        return math.nan
    return max(-3.4e38, min(3.4e38, value))
