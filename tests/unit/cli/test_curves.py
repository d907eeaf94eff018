"""Curves as braille dots."""

from rich.console import Console

from preftune.cli.curves import plot


def picture(curves: dict[str, list[tuple[float, float]]], width: int = 20, height: int = 4) -> list[str]:
    console = Console(width=80, file=None)
    with console.capture() as capture:
        console.print(plot(curves, width, height))
    return [line.rstrip() for line in capture.get().splitlines()]


def dots(line: str) -> int:
    return sum((ord(char) - 0x2800).bit_count() for char in line if 0x2800 <= ord(char) < 0x2900)


def test_a_falling_curve_goes_from_the_upper_left_to_the_lower_right() -> None:
    lines = picture({"loss": [(float(step), 40.0 - step) for step in range(40)]})
    frames = [line[10:30].ljust(20, "\u2800") for line in lines[:4]]
    assert lines[0].startswith("       40")
    assert lines[3].startswith("        1")
    assert [dots(frame[5 * row : 5 * row + 5]) for row, frame in enumerate(frames)] == [10, 10, 10, 10]
    assert "step 39  loss 1.0000" in lines[4]


def test_curves_share_one_scale_and_a_flat_one_is_drawn() -> None:
    lines = picture({"a": [(1.0, 0.0), (2.0, 0.0)], "b": [(1.0, 8.0), (2.0, 8.0)], "none": []})
    assert dots(lines[0]) == 2
    assert dots(lines[3]) == 2
    assert "a 0.0000 b 8.0000" in " ".join(lines[4].split())
    assert dots("".join(picture({"flat": [(1.0, 5.0), (9.0, 5.0)]}))) == 2


def test_without_points_it_says_so() -> None:
    assert picture({"a": []}) == ["no points yet"]
