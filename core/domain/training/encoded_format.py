"""On-disk layout of tokenised data: written by `core.tokenization`, memory-mapped by `core.training`.

A directory with four files, all little-endian, so that opening a million pairs costs no memory:

    meta.json    {"version", "kind", "num_rows", "num_tokens", "digest"}
    tokens.i32   [num_tokens] token ids, rows one after another
    scored.u8    [num_tokens] 1 where a loss is taken on the token: assistant text of the response and its one end token
    rows.i64     [num_rows, 6] the columns below

A preference row spans `prompt = [prompt_start, first_start)`, `chosen = [first_start, second_start)` and
`rejected = [second_start, end)`. A demonstration or unpaired row has one response, so `second_start == end`.
"""

VERSION = 1

META_FILE = "meta.json"
TOKENS_FILE = "tokens.i32"
SCORED_FILE = "scored.u8"
ROWS_FILE = "rows.i64"

COLUMNS = ("line", "prompt_start", "first_start", "second_start", "end", "label")
"""Columns of `rows.i64`. `label` is 1 for a desirable unpaired response, else 0."""
