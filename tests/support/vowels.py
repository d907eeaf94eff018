"""A scorer for tests of the frontier: the share of vowels, from -1 to 1."""


def score(text: str) -> float:
    return 2 * sum(letter in "aeiou" for letter in text) / max(1, len(text)) - 1
