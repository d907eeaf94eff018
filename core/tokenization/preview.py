"""Preview of rows as a base model sees them, for people who check their data before training."""

from dataclasses import dataclass

from core.domain.dataset_rows import DemonstrationRow, PreferenceRow, Text, UnpairedRow
from core.tokenization.pair_tokenizer import PairTokenizer, context_of

Row = PreferenceRow | DemonstrationRow | UnpairedRow


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviewedText:
    text: str
    """Text as rendered, control tokens included."""
    token_ids: list[int]
    tokens: list[str]
    """Each token as text; a token that holds a part of a character shows as `�`."""
    scored: list[bool]
    """Whether a loss is taken on the token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowPreview:
    """Preview of a row: `chosen` and `rejected` of a preference row, else `response`, after the same prompt."""

    prompt: PreviewedText
    responses: dict[str, PreviewedText]

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and longest response, compared with `max_length`."""
        return len(self.prompt.token_ids) + max(len(response.token_ids) for response in self.responses.values())

    @property
    def is_equal_pair(self) -> bool:
        """Whether chosen and rejected have the same tokens and the same scored ones."""
        responses = [(response.token_ids, response.scored) for response in self.responses.values()]
        return len(responses) == 2 and responses[0] == responses[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredRow:
    lengths: dict[str, int]
    """In tokens, by field, and under `row` what `max_length` is compared with."""
    texts: tuple[int, int, int]
    """Hashes of the tokens of the prompt, the first and the second response; 0 where there is none."""
    is_equal_pair: bool


def measure_row(tokenizer: PairTokenizer, row: Row) -> MeasuredRow:
    """Measure a row in tokens; raises UnencodableRow, UnusableChatTemplate."""
    texts = _responses(row)
    split = tokenizer.split(row["prompt"], list(texts.values()), context_of(row))
    prompt_ids, responses = tokenizer.encode_split(split)
    counts = {name: len(encoded.ids) for name, encoded in zip(texts, responses, strict=True)}
    lengths = {"prompt": len(prompt_ids), **counts, "row": len(prompt_ids) + max(counts.values())}
    first, *second = (hash(tuple(encoded.ids)) for encoded in responses)
    return MeasuredRow(
        lengths=lengths,
        texts=(hash(tuple(prompt_ids)), first, second[0] if second else 0),
        is_equal_pair=len(responses) == 2 and responses[0] == responses[1],
    )


def preview_row(tokenizer: PairTokenizer, row: Row) -> RowPreview:
    """Render and encode a row; raises UnencodableRow, UnusableChatTemplate."""
    texts = _responses(row)
    split = tokenizer.split(row["prompt"], list(texts.values()), context_of(row))
    prompt_ids, responses = tokenizer.encode_split(split)
    shown = [tokenizer.show_response(segments) for segments in split.responses]
    return RowPreview(
        prompt=PreviewedText(
            text=tokenizer.show_text(split.prompt),
            token_ids=prompt_ids,
            tokens=tokenizer.show_tokens(prompt_ids),
            scored=[False] * len(prompt_ids),
        ),
        responses={
            name: PreviewedText(
                text=text,
                token_ids=encoded.ids,
                tokens=tokenizer.show_tokens(encoded.ids),
                scored=encoded.scored,
            )
            for name, text, encoded in zip(texts, shown, responses, strict=True)
        },
    )


def _responses(row: Row) -> dict[str, Text]:
    """Return the responses by field."""
    if "chosen" in row:
        return {"chosen": row["chosen"], "rejected": row["rejected"]}
    return {"response": row["response"]}
