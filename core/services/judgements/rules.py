"""Rules as judges: a score for an answer, in time that is linear in its length, whatever the pattern is."""

from collections.abc import Callable
from typing import Any

import jsonschema_rs
import orjson
from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

from core.domain.errors import FieldError, InvalidRequest
from core.domain.judging.judgements import Judge

Rule = Callable[[str], float]
RULES = ("length", "regex", "exact_match", "json_schema")


def rule_of(judge: Judge) -> Rule:
    """Return the score of an answer under the rule. Raises InvalidRequest for a pattern or schema that is none."""
    if judge.kind == "length":
        sign = 1.0 if judge.prefers == "longer" else -1.0
        return lambda text: sign * len(text)
    if judge.kind == "exact_match":
        wanted = str(judge.text).strip()
        return lambda text: float(text.strip() == wanted)
    return _regex(str(judge.pattern)) if judge.kind == "regex" else _schema(judge.json_schema or {})


def _regex(pattern: str) -> Rule:
    """Search with Rust's engine, which pydantic has: it never goes back, so no pattern takes long."""
    try:
        validator = SchemaValidator(core_schema.str_schema(pattern=pattern))
    except SchemaError as error:
        reason = str(error).splitlines()[-1].removeprefix("error: ").strip()
        raise _fault(
            "/judge/pattern", f"is no regular expression that can be searched for in linear time: {reason}"
        ) from None

    def score(text: str) -> float:
        try:
            validator.validate_python(text)
        except ValidationError:
            return 0.0
        return 1.0

    return score


def _schema(schema: dict[str, Any]) -> Rule:
    try:
        validator = jsonschema_rs.Draft202012Validator(
            schema, offline=True, pattern_options=jsonschema_rs.RegexOptions()
        )
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        reason = str(error).splitlines()[0][:300] if str(error) else "it is malformed"
        raise _fault("/judge/json_schema", f"is no JSON Schema that can be used: {reason}") from None

    def score(text: str) -> float:
        try:
            return float(validator.is_valid(orjson.loads(text)))
        except (orjson.JSONDecodeError, ValueError):
            return 0.0

    return score


def _fault(pointer: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{pointer}: {fault}", errors=[FieldError(pointer, fault)])
