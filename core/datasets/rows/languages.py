"""Quick guess of a text's writing system and language, for reports and not for decisions about rows."""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from typing import Final

SAMPLE_CHARS: Final = 300
_LETTER = re.compile(r"[^\W\d_]")
_BEYOND_LATIN: Final = r"[\u0370-\u1dff\u2c00-\ua71f\ua800-\uaaff\uabc0-\ufaff\ufb13-\uffdc\U00010000-\U000323af]"
"""Compiled by its first use: most files need it not."""
_WORD = re.compile(r"[^\W\d_]+")

# Where each script's letters begin; what lies between is of the one before. Good enough to tell them apart at a glance.
_BLOCKS: Final = (
    (0x0000, "Latin"), (0x0370, "Greek"), (0x0400, "Cyrillic"), (0x0530, "Armenian"), (0x0590, "Hebrew"),
    (0x0600, "Arabic"), (0x0900, "Devanagari"), (0x0980, "Bengali"), (0x0A00, "Other"), (0x0B80, "Tamil"),
    (0x0C00, "Telugu"), (0x0C80, "Other"), (0x0E00, "Thai"), (0x0E80, "Other"), (0x10A0, "Georgian"),
    (0x1100, "Hangul"), (0x1200, "Ethiopic"), (0x1380, "Other"), (0x1E00, "Latin"), (0x1F00, "Greek"),
    (0x2000, "Other"), (0x3040, "Kana"), (0x3100, "Other"), (0x3130, "Hangul"), (0x3190, "Other"),
    (0x31F0, "Kana"), (0x3200, "Other"), (0x3400, "Han"), (0xA000, "Other"), (0xAC00, "Hangul"), (0xD7B0, "Other"),
    (0xF900, "Han"), (0xFB00, "Latin"), (0xFB13, "Other"), (0xFB50, "Arabic"), (0xFE00, "Other"), (0xFE70, "Arabic"),
    (0xFF00, "Latin"), (0xFF66, "Kana"), (0xFFA0, "Hangul"), (0x10000, "Other"), (0x20000, "Han"),
)  # fmt: skip
_BEGINS: Final = [begin for begin, _ in _BLOCKS]

_LANGUAGE_OF_SCRIPT: Final[Mapping[str, str]] = {
    "Greek": "el", "Armenian": "hy", "Hebrew": "he", "Arabic": "ar", "Devanagari": "hi", "Bengali": "bn", "Tamil": "ta",
    "Telugu": "te", "Thai": "th", "Georgian": "ka", "Hangul": "ko", "Ethiopic": "am", "Han": "zh", "Kana": "ja",
}  # fmt: skip
_FREQUENT_WORDS: Final[Mapping[str, str]] = {
    "en": "the of and to in is that for it with as was on are you this be have or what how not",
    "de": "der die und das ist nicht ein eine zu mit den von für auf sie wie ich es auch dem",
    "fr": "le la les de des et est un une que pour dans qui pas vous sur avec je ce il au",
    "es": "el la los de que y en un una es por con para las del se no como más su",
    "pt": "o a os de que e do da em um uma para com não por é mais as dos se como",
    "it": "il la di che e un una per è non con sono del della le si i come più da",
    "nl": "de het een van en is dat niet te in op voor met zijn die ik je er aan ook",
    "pl": "i w nie na się że z do to jest jak o co czy po od za dla przez tak",
    "sv": "och att det som en är på för med av den inte till ett om jag du har de kan",
    "tr": "bir ve bu için ile da de ne çok daha olarak gibi var mı en o değil kadar ben",
    "ro": "și de la în a nu este că o un pe cu din pentru mai care se sau ce au",
    "vi": "và của là có không một được cho các trong những để với người này khi đã từ",
    "id": "yang dan di untuk dengan ini itu dari tidak pada adalah dalam saya anda ke akan bisa",
}
_LANGUAGES_OF_WORD: Final[dict[str, list[str]]] = {}
for _language, _frequent in _FREQUENT_WORDS.items():
    for _word in _frequent.split():
        _LANGUAGES_OF_WORD.setdefault(_word, []).append(_language)


def script_of(text: str) -> str | None:
    """Return the script of most letters; None without letters. A fifth of Kana makes it Japanese."""
    sample = text[:SAMPLE_CHARS]
    beyond = [] if sample.isascii() else re.findall(_BEYOND_LATIN, sample)
    if not beyond:
        return "Latin" if _LETTER.search(sample) else None
    counts = Counter(_BLOCKS[bisect_right(_BEGINS, ord(letter)) - 1][1] for letter in beyond if letter.isalpha())
    counts["Latin"] += sum(letter < "\u0370" for letter in _LETTER.findall(sample))
    if counts["Kana"] * 5 >= counts["Kana"] + counts["Han"] > 0:
        counts["Kana"] += counts.pop("Han", 0)
    script, count = max(counts.items(), key=lambda item: (item[1], item[0]))
    return script if count else None


def language_of(text: str, script: str | None) -> str:
    """Return an ISO 639-1 code, or `unknown`."""
    sample = text[:SAMPLE_CHARS].lower()
    if script == "Cyrillic":
        return "uk" if any(letter in sample for letter in "іїєґ") else "ru"
    if script == "Arabic":
        return "fa" if any(letter in sample for letter in "پچژگ") else "ar"
    if script != "Latin":
        return _LANGUAGE_OF_SCRIPT.get(script or "", "unknown")
    hits = Counter(language for word in _WORD.findall(sample) for language in _LANGUAGES_OF_WORD.get(word, ()))
    best = max(hits, key=lambda language: (hits[language], language), default="unknown")
    return best if hits[best] >= 2 else "unknown"
