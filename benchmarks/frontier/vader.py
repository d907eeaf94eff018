"""VADER (Hutto and Gilbert, 2014): a lexicon with rules, so that the reward is the same wherever it is computed."""

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

_ANALYZER = SentimentIntensityAnalyzer()


def score(text: str) -> float:
    """Return the compound sentiment in [-1, 1]."""
    return float(_ANALYZER.polarity_scores(text)["compound"])
