"""Lists and objects as Python, NumPy and DuckDB print them: what `to_csv` and `COPY` leave in the cells of a table.

Python (pandas):   [{'role': 'user', 'content': "it's"}]          escapes as in a literal, None, True, tuples
NumPy (datasets):  [{'role': 'user'}\n {'role': 'assistant'}]     no commas; array([…], dtype=object), np.float64(1.5)
DuckDB, struct:    [{'role': user, 'content': 'it\\'s, yes'}]     a text is bare unless it holds a special character
DuckDB, map:       {role=user, content=Hi}

In which of them a cell is written shows in its tokens: DuckDB (since 1.2) puts every text with a bracket, a quote, a
colon, a comma, an equals sign or a backslash into quotes, so a bare word is DuckDB's, and a parenthesis outside quotes
is Python's.
JSON is read elsewhere, and is tried first.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NoReturn

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+")|(?P<mark>[\[\](){}:,=])|(?P<bare>[^'"()\[\]{}:,=\\]++)""",
    re.DOTALL,
)
_CONSTANTS: Final[dict[str, object]] = {
    "None": None, "True": True, "False": False, "np.True_": True, "np.False_": False,
    "nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"),
}  # fmt: skip
_NUMBER = re.compile(r"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?")
_MAX_DIGITS: Final = 4300
"""Python reads no longer integer."""
_LEFT_OUT: Final = "..."
_CLOSING: Final = {"[": "]", "(": ")", "{": "}"}
_PYTHON_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_PYTHON_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\n": ""}


class NotationError(Exception):
    """Raised for a text in none of the notations; the message names the place."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    begin: int


def parse_notation(text: str, max_depth: int) -> object:
    """Parse a list or an object.

    Raises:
        NotationError: the text breaks off, is nested too deeply, or is something else.
    """
    return _Parser(text, max_depth).parse()


class _Parser:
    def __init__(self, text: str, max_depth: int) -> None:
        self._max_depth = max_depth
        self._num_chars = len(text)
        self._tokens = list(_tokens(text))
        self._place = 0
        self._is_duckdb = _is_duckdb(self._tokens)

    def parse(self) -> object:
        if self._mark() not in _CLOSING and not self._is_call():
            self._fail()
        value = self._value(1)
        if self._place < len(self._tokens):
            self._fail()
        return value

    def _token(self) -> _Token:
        if self._place >= len(self._tokens):
            raise NotationError(f"it breaks off after {self._num_chars:,} characters")
        token = self._tokens[self._place]
        if token.kind == "broken" and token.text in ("'", '"'):
            raise NotationError(f"it breaks off after {self._num_chars:,} characters")
        return token

    def _mark(self) -> str:
        """Consume the next bracket or separator, if there is one."""
        token = self._token()
        return token.text if token.kind == "mark" else ""

    def _fail(self) -> NoReturn:
        raise NotationError(f"it is no list or object from its character {self._token().begin + 1:,} on")

    def _expect(self, mark: str) -> None:
        if self._mark() != mark:
            self._fail()
        self._place += 1

    def _value(self, depth: int) -> object:
        if depth > self._max_depth:
            raise NotationError(f"it is nested more than {self._max_depth} levels deep")
        token = self._token()
        if self._is_call():
            return self._call(depth)
        self._place += 1
        if token.kind == "text":
            return self._text(token)
        if token.kind == "bare":
            return token.text if self._is_duckdb and token.text != "NULL" else self._constant(token)
        if token.text in ("[", "("):
            return self._items(_CLOSING[token.text], depth)
        if token.text == "{":
            return self._object(depth)
        self._place -= 1
        self._fail()

    def _constant(self, token: _Token) -> object:
        if token.text == "NULL":
            return None
        if token.text in _CONSTANTS:
            return _CONSTANTS[token.text]
        if token.text == _LEFT_OUT:
            raise NotationError("NumPy left out its middle ('...') when it was written")
        if not _NUMBER.fullmatch(token.text):
            self._place -= 1
            self._fail()
        if set(token.text) & set(".eE"):
            return float(token.text)
        if len(token.text) > _MAX_DIGITS:
            raise NotationError(f"a number has more than {_MAX_DIGITS:,} characters")
        return int(token.text)

    def _text(self, token: _Token) -> str:
        inner = token.text[1:-1]
        if "\\" not in inner:
            return inner
        return re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL) if self._is_duckdb else unescape_python(inner)

    def _items(self, closing: str, depth: int) -> list[object]:
        """Parse items; NumPy puts no commas between elements."""
        items: list[object] = []
        while self._mark() != closing:
            items.append(self._value(depth + 1))
            if self._mark() == ",":
                self._place += 1
        self._place += 1
        return items

    def _object(self, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        while self._mark() != "}":
            key = self._token()
            self._place += 1
            if key.kind not in ("text", "bare"):
                self._fail()
            self._expect("=" if key.kind == "bare" else ":")
            name = self._text(key) if key.kind == "text" else key.text
            if name in found:
                raise NotationError("a key stands twice in one object")
            found[name] = self._value(depth + 1)
            if self._mark() != "}":
                self._expect(",")
        self._place += 1
        return found

    def _is_call(self) -> bool:
        following = self._tokens[self._place + 1 : self._place + 2]
        return self._token().kind == "bare" and bool(following) and following[0].text == "("

    def _call(self, depth: int) -> object:
        """Parse `array([…], dtype=object)` or `np.float64(1.5)` as its first argument; any other call gives None."""
        name = self._token().text
        self._place += 2
        arguments: list[object] = []
        while self._mark() != ")":
            following = self._tokens[self._place + 1 : self._place + 2]
            if following and following[0].text == "=":
                self._place += 3  # the name of a type, such as `dtype=object`
            else:
                arguments.append(self._value(depth + 1))
            if self._mark() == ",":
                self._place += 1
        self._place += 1
        return arguments[0] if arguments and (name == "array" or name.startswith("np.")) else None


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:  # a quote that is never closed, or a backslash outside quotes
            found.append(_Token("broken", text[place], place))
            break
        found += _split_numbers(match)
        place = match.end()
    return found


def _split_numbers(match: re.Match[str]) -> list[_Token]:
    """Split numbers that only white space separates, as NumPy prints them; any other bare text stays whole."""
    kind = match.lastgroup or ""
    if kind != "bare":
        return [_Token(kind, match[0], match.start())]
    words = list(re.finditer(r"\S+", match[0]))
    if len(words) > 1 and all(_is_constant(word[0]) for word in words):
        return [_Token(kind, word[0], match.start() + word.start()) for word in words]
    return [_Token(kind, match[0].strip(), match.start())] if words else []


def _is_constant(word: str) -> bool:
    return word in _CONSTANTS or word == _LEFT_OUT or _NUMBER.fullmatch(word) is not None


def _is_duckdb(tokens: list[_Token]) -> bool:
    """Whether DuckDB wrote it: bare words, no parenthesis, and no quoted keys as broken JSON has them."""
    for token, following in pairwise(tokens):
        if token.text == "(" and token.kind == "mark":
            return False
        if token.kind == "text" and token.text[0] == '"' and following.text == ":":
            return False
    return any(token.kind == "bare" and not _is_constant(token.text) for token in tokens)


def unescape_python(text: str) -> str:
    """Unescape a string literal as `repr` writes it. Raises NotationError for half a surrogate pair."""
    plain = _PYTHON_ESCAPE.sub(_unescape, text)
    try:
        return plain if plain.isascii() else plain.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise NotationError("a text holds half of a surrogate pair") from None


def _unescape(match: re.Match[str]) -> str:
    escape = match[1]
    if len(escape) > 1:
        number = int(escape[1:], 16)
        return chr(number) if number <= 0x10FFFF else "\N{REPLACEMENT CHARACTER}"
    return _PYTHON_ESCAPES.get(escape, escape)
