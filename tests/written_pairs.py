"""The pairs that other programs write in `integration/test_writers.py`, and that their kept files hold."""

from typing import Any, Final

FIELDS: Final = ("prompt", "chosen", "rejected")
_TEXTS: Final = (
    ("Name a fruit.", "Apple.", "I don't know."),
    ("Wie heißt die Hauptstadt?", "Sie heißt „Wien“.", "München, glaube ich…"),
    ('Write two lines, "quoted".', "One, \"first\"\nTwo, 'second'", "C:\\new\\table\tend"),
    ("How many?", "12", "007"),
    ("Is it missing?", "null", "None"),
    ("Brackets; and more?", "{a}, [b]: c = (d)", "🙂 \\n, 日本"),
)
PLAIN: Final[list[dict[str, Any]]] = [dict(zip(FIELDS, texts, strict=True)) for texts in _TEXTS]
MESSAGES: Final[list[dict[str, Any]]] = [
    {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }
    for prompt, chosen, rejected in _TEXTS
]


def normalised(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "line"} for row in rows]
