"""Pydantic's words are never shown: one plain sentence for each field."""

import time
from typing import Any

import pytest
from pydantic import ValidationError

from api.http.validation_messages import field_errors, shown
from core.domain.jobs.job_spec import JobRequest

MISSPELT = "is an unknown field; check its spelling"
LEAST = {"base_model": "m", "dataset_id": "d"}


def told(fields: Any) -> dict[str, str]:
    payload = LEAST | fields if isinstance(fields, dict) else fields
    with pytest.raises(ValidationError) as caught:
        JobRequest.model_validate(payload)
    errors = field_errors(caught.value.errors(), payload)
    assert len({error.pointer for error in errors}) == len(errors)
    return {error.pointer: error.detail for error in errors}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"beta": 0}, {"/beta": "must be greater than 0, not 0"}),
        ({"beta": "x"}, {"/beta": 'must be a number, not "x"'}),
        ({"sft": "skp"}, {"/sft": 'must be an object or "skip", not "skp"'}),
        ({"sft": 3}, {"/sft": 'must be an object or "skip", not 3'}),
        ({"sft": {"learning_rate": 5}}, {"/sft/learning_rate": 'must be at most 1 or "auto", not 5'}),
        ({"sft": {"learning_rate": "x"}}, {"/sft/learning_rate": 'must be a number or "auto", not "x"'}),
        ({"dpo": {"batch_size": []}}, {"/dpo/batch_size": 'must be a whole number or "auto", not []'}),
        ({"dpo": {"epochs": 1.5}}, {"/dpo/epochs": 'must be a whole number or "auto", not 1.5'}),
        ({"dpo": {"epcohs": 1}}, {"/dpo/epcohs": MISSPELT}),
        ({"sft": {"a": 1, "b": 1}}, {"/sft/a": MISSPELT, "/sft/b": MISSPELT}),
        ({"lora": {"target_modules": [1]}}, {"/lora/target_modules/0": "must be a text, not 1"}),
        ({"lora": {"target_modules": 1}}, {"/lora/target_modules": 'must be "all-linear" or a list, not 1'}),
        (
            {"lora": {"target_parameters": "all-experts", "dropout": 0.1}},
            {"/lora": "adapters on experts take no dropout: leave out lora.dropout or lora.target_parameters"},
        ),
        ({"precision": "fp64"}, {"/precision": 'must be "bf16" or "fp32" or "auto", not "fp64"'}),
        (
            {"variant_options": {"a": [1]}},
            {"/variant_options/a": "must be a number or true or false or a text, not [1]"},
        ),
        (
            {"metadata": {"": "x", "k/l": 5}},
            {"/metadata/": "must not be empty", "/metadata/k~1l": "must be a text, not 5"},
        ),
        ({"metadata": [1]}, {"/metadata": "must be an object, not [1]"}),
        ({"name": ""}, {"/name": "must not be empty"}),
        ({"name": "a\x07b"}, {"/name": 'must hold no control characters, not "a\\u0007b"'}),
        ({"sample_prompts": ["a"] * 17}, None),
        ({"reuse": "maybe"}, {"/reuse": 'must be true or false, not "maybe"'}),
        (
            {"validation_dataset_id": "x", "validation_fraction": 0.1},
            {"": "give validation_dataset_id or validation_fraction, not both"},
        ),
        ([], {"": "must be an object, not []"}),
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_sentences(fields: Any, expected: dict[str, str] | None) -> None:
    found = told(fields)
    if expected is not None:
        assert found == expected
    else:
        assert found["/sample_prompts"].startswith("must have at most 16 entries, not [")


@pytest.mark.parametrize(
    ("fields", "pointer", "meant"),
    [
        ({"varient": "dpo"}, "/varient", "variant"),
        ({"max_lenght": 1}, "/max_lenght", "max_length"),
        ({"sft": {"epcohs": 1}}, "/sft/epcohs", "epochs"),
        ({"lora": {"rnak": 1}}, "/lora/rnak", "rank"),
        ({"early_stopping": {"patiance": 1}}, "/early_stopping/patiance", "patience"),
        ({"dpo": {"rank": 1}}, "/dpo/rank", None),
        ({"colour": "red"}, "/colour", None),
    ],
)
def test_an_unknown_field_says_what_was_probably_meant(fields: Any, pointer: str, meant: str | None) -> None:
    with pytest.raises(ValidationError) as caught:
        JobRequest.model_validate(LEAST | fields)
    (error,) = field_errors(caught.value.errors(), LEAST | fields, JobRequest)
    expected = f"is an unknown field; did you mean `{meant}`?" if meant else MISSPELT
    assert (error.pointer, error.detail) == (pointer, expected)


def test_a_body_full_of_unknown_fields_takes_no_minutes() -> None:
    body = LEAST | {f"setting_{number}": 1 for number in range(20_000)}
    with pytest.raises(ValidationError) as caught:
        JobRequest.model_validate(body)
    started = time.process_time()
    errors = field_errors(caught.value.errors(), body, JobRequest)
    assert time.process_time() - started < 10  # of a second; a look at every pair of them took over a minute
    assert len(errors) == 20_000


def test_the_pattern_of_an_order_is_told_as_its_names() -> None:
    error = {"type": "string_pattern_mismatch", "loc": ("sort",), "input": "x", "ctx": {"pattern": "^-?(line|margin)$"}}
    (told,) = field_errors([error], {"sort": "x"})
    assert told.detail == 'must be line, margin, with `-` before it for the largest first, not "x"'


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        JobRequest.model_validate({})
    errors = field_errors(caught.value.errors(), {})
    assert [(error.pointer, error.detail) for error in errors] == [
        ("/base_model", "is required"),
        ("/dataset_id", "is required"),
    ]


def test_values_are_shown_short() -> None:
    assert len(shown("x" * 1000)) == 60
    assert shown(None) == "null"
