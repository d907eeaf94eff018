import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.problems import HttpError
from api.http.strict_json import MAX_DEPTH, list_faults, parse, pointer_part

JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text("ab/~", max_size=3), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(JSON_VALUES)
def test_what_is_json_is_read_as_it_stands(value: object) -> None:
    assert parse(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"a": [1, NaN]}', "/a/1"),
        (b'{"a": {"b": -Infinity}}', "/a/b"),
        (b'{"a/b": 1e999}', "/a~1b"),
        (b'{"~": "\\u0000"}', "/~0"),
        (b'{"a": "\\ud800"}', "/a"),
        (b'["\\udc00\\ud800"]', "/0"),
        (b'{"a": 1, "a": 1}', ""),
        (b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), ""),
        (b"[" * 100_000, ""),
        (b"1" * 5000, ""),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_no_field_can_hold_is_named(body: bytes, pointer: str) -> None:
    with pytest.raises(HttpError) as caught:
        parse(body)
    assert caught.value.fault.kind.status == 422
    assert [error.pointer for error in caught.value.fault.errors] == [pointer]


def test_a_whole_pair_of_surrogates_is_a_character() -> None:
    assert parse(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


@pytest.mark.parametrize("body", [b"", b"{", b"{'a': 1}", b"\xff\xfe", b"\xed\xa0\x80", b"nul"])
def test_what_is_no_json_is_400_and_says_where(body: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        parse(body)
    assert (caught.value.fault.kind.status, caught.value.fault.kind.code) == (400, "malformed-json")


def test_faulty_keys_have_printable_pointers() -> None:
    faults = list_faults({"a\x00": {"\ud800": math.nan}})
    assert [fault.pointer for fault in faults] == ["/a\\u0000", "/a\\u0000/?", "/a\\u0000/?"]
    assert pointer_part("a/b~c") == "/a~1b~0c"


def test_the_list_of_faults_ends() -> None:
    assert len(list_faults([math.nan] * 100_000)) == 100
