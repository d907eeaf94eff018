"""Jinja2 sandbox with a bound on work: a template that loops or grows without end is stopped.

The sandbox keeps a template from Python's internals, but lets it compute as long as it likes. Here every loop, call and
operator draws on a budget, and no string grows past a limit. Only operators put templates into the models directory,
so this is a second line of defence.
"""

import itertools
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from datetime import datetime
from typing import Any, NoReturn, cast

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from core.tokenization.errors import TemplateTooCostly
from core.tokenization.growth import growth, json_size, size_of

MAX_STEPS = 500_000
"""Loop rounds, calls and operators of one rendering; a conversation of 1,000 messages takes some tens of thousands."""
MAX_SECONDS = 5.0
MAX_STRING = 16 * 1024**2
"""Characters of any string a template makes, its output included."""
MAX_NUMBER = 10**6
"""Limit of numbers that a template passes to calls and filters: widths and counts."""

_GROWING_FILTERS = (
    "center", "format", "indent", "wordwrap", "urlize", "urlencode", "xmlattr", "batch", "slice", "replace", "join",
    "e", "escape", "forceescape", "string", "pprint",
)  # fmt: skip
_FORMATS = ("format", "format_map")
_WIDE_FORMAT = re.compile(r"\d{5}|\*")


class Budget:
    """Remaining budget of one rendering."""

    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._deadline = time.monotonic() + MAX_SECONDS

    def spend(self, steps: int = 1) -> None:
        self._steps -= steps
        is_late = self._steps % 64 == 0 and time.monotonic() > self._deadline
        if self._steps < 0 or is_late:
            raise TemplateTooCostly(
                "The base model's chat template takes more work than any known one and was stopped. Give the base "
                "model another chat_template.jinja."
            )

    def refuse_if(self, is_too_much: bool) -> None:
        if is_too_much:
            self.spend(MAX_STEPS + 1)

    def check(self, value: Any) -> Any:
        """Return the value; raises for a text or number that is too large."""
        if isinstance(value, str | list):
            self.refuse_if(len(value) > MAX_STRING)
        elif isinstance(value, int):
            self.refuse_if(abs(value) > MAX_NUMBER**2)
        return value


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """The environment in which transformers renders chat templates, with a budget. One rendering at a time."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.budget = Budget()
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], finalize=self._sized
        )
        for name in _GROWING_FILTERS:
            self.filters[name] = self._limit(name, self.filters[name])
        self.filters |= {
            "tojson": self._to_json,
            "bounded_rounds": self._bound_rounds,
            "bounded_concat": self._concatenate,
            "checked": self._check,
        }
        self.globals.pop("lipsum")
        self.globals |= {
            "raise_exception": _raise,
            "strftime_now": lambda layout: now().strftime(layout),
            "namespace": _Namespace,
        }

    def compile_bounded(self, source: str) -> jinja2.Template:
        """Compile a template whose loops and concatenations use the budget. Raises jinja2.TemplateError."""
        tree = _Instrument().visit(self.parse(source))
        tree.set_environment(self)
        return jinja2.Template.from_code(self, self.compile(tree), self.make_globals(None))

    def render_bounded(self, template: jinja2.Template, variables: Mapping[str, Any]) -> str:
        """Render; raises TemplateTooCostly, and whatever the template raises."""
        self.budget = Budget()
        pieces, length = [], 0
        for piece in template.generate(**variables):
            self.budget.spend()
            length += len(piece)
            self.budget.refuse_if(length > MAX_STRING)
            pieces.append(piece)
        return "".join(pieces)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.budget.spend()
        if operator == "*" and (isinstance(left, Sized) or isinstance(right, Sized)):
            length = len(left) * right if isinstance(left, Sized) else len(right) * left
            self.budget.refuse_if(length > MAX_STRING)
        if operator == "%" and isinstance(left, str):
            self._refuse_growth("format", left, right if isinstance(right, tuple) else (right,))
        self.budget.refuse_if(operator == "**")
        return self.budget.check(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self.budget.spend()
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps `format`
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str):
            __self._refuse_growth(method.__name__, owner, (*args, *kwargs.values()))
        return __self.budget.check(super().call(__context, __obj, *args, **kwargs))

    def _check(self, value: Any) -> Any:
        self.budget.spend()
        return self.budget.check(value)

    def _bound_rounds(self, iterable: Iterable[Any]) -> Iterable[Any]:
        """Return the rounds of a loop, charged before the first one."""
        rounds = iterable if isinstance(iterable, Sized) else list(itertools.islice(iterable, MAX_STEPS + 1))
        self.budget.spend(1 + len(rounds))
        return rounds

    def _concatenate(self, values: list[Any]) -> str:
        self.budget.spend()
        self._sized(values)
        return "".join(map(str, values))

    def _sized(self, value: Any) -> Any:
        """Return a value that becomes a text; raises for one whose text would be too large."""
        self.budget.refuse_if(size_of(value, MAX_STRING) > MAX_STRING)
        return value

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        self.budget.spend()
        self.budget.refuse_if(json_size(value, MAX_STRING, indent, separators) > MAX_STRING)
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def _limit(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def limited(*args: Any, **kwargs: Any) -> Any:
            self.budget.spend()
            values = [value for value in args if not isinstance(value, jinja2.nodes.EvalContext | jinja2.Environment)]
            text = self._sized(values[0]) if values else ""
            if name == "join" and isinstance(text, Sized):
                self._refuse_growth("join", str(values[1]) if len(values) > 1 else "", (text,))
            elif isinstance(text, str):
                self._refuse_growth(name, text, (*values[1:], *kwargs.values()))
            return self.budget.check(function(*args, **kwargs))

        limited.__dict__.update(function.__dict__)  # marks of what jinja passes as first argument
        return limited

    def _refuse_growth(self, name: str, text: str, args: tuple[Any, ...]) -> None:
        """Refuse a text method whose result would be too large, before it is made."""
        self.budget.refuse_if(any(isinstance(value, int) and abs(value) > MAX_NUMBER for value in args))
        if name in _FORMATS:
            self.budget.refuse_if(bool(_WIDE_FORMAT.search(text)))
        self.budget.refuse_if(growth(name, text, args, MAX_STRING) > MAX_STRING)


class _Instrument(NodeTransformer):
    """Rewrites loops, `~` and assignments to use the sandbox's budget."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "bounded_rounds")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes), "bounded_concat")

    def visit_Assign(self, node: nodes.Assign) -> nodes.Assign:
        self.generic_visit(node)
        node.node = _filtered(node.node, "checked")
        return node


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, node), name, [], [], None, None)


class _Generation(Extension):
    """Parses `{% generation %}…{% endgeneration %}`, which marks answers for trainers, as its content."""

    tags = {"generation"}  # noqa: RUF012 (the base class's own form)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Namespace without underscored names, which could reach the class's own attributes."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        for name in dict(*rest, **kwargs):
            _refuse_private(name)
        Namespace.__init__(self, *rest, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: str) -> None:
    if name.startswith("_"):
        raise jinja2.exceptions.SecurityError("names of a namespace cannot start with an underscore")


def _raise(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)
