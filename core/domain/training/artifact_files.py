"""Names of files inside an artifact that more than one process reads."""

PAIRS_FILE = "pairs.jsonl"
"""In the artifact: the report on every pair, one JSON object a line."""
PAIR_VALUES = (
    "reference_margin",
    "margin_first",
    "margin_last",
    "chosen_reward",
    "rejected_reward",
    "gradient_weight",
    "length_difference",
    "mislabelled_score",
)
"""Numbers of a line of the report, null where unknown."""
PAIR_COLUMNS = ("line", "split", *PAIR_VALUES, "flags")
SUMMARY_FILE = "evaluation.json"
"""In the artifact: what was measured besides the curves."""
