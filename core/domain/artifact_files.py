"""Names of files inside an artifact that more than one process reads."""

PAIRS_FILE = "pairs.jsonl"
"""In the artifact: what became of every pair."""


SUMMARY_FILE = "evaluation.json"
"""In the artifact: what was measured besides the curves."""
