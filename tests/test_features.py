"""The table of features: every row has a test that exists, and nothing public is without a row."""

from __future__ import annotations

import ast
import enum
import re
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest

import trio_voice
from trio_voice import RealtimeSession
from trio_voice.events import EVENT_NAMES
from trio_voice.function_tools import FunctionTool
from trio_voice.tracker import ConversationTurn, SessionMetrics

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/reference/features.md"
NOT_OPTIONS = {"parameters", "function", "accepted"}
"""Of a `FunctionTool`: what the function itself says."""

_NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)(?:\[([^`]+)\])?`")


def tables() -> dict[str, list[list[str]]]:
    """The cells of each row, by heading."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:]
            found[heading] = []
        elif line.startswith("|"):
            found[heading].append([cell.strip() for cell in line.strip("|").split("|")])
    return {heading: rows[2:] for heading, rows in found.items()}


TABLES = tables()
ROWS = [row for rows in TABLES.values() for row in rows]


@cache
def functions_of(path: str) -> dict[str, str]:
    """The source of each test of a file, its decorators too."""
    source = (ROOT / path).read_text(encoding="utf-8")
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name: ast.unparse(node) for node in functions}


def what_is_wrong_with(row: list[str]) -> str | None:
    if len(row) != 3 or not all(row):
        return "it is not a feature, how, and a test"
    if "](" not in row[1]:
        return "it leads to no page"
    named = _NAMED_TEST.fullmatch(row[2])
    if named is None:
        return "it names no test"
    path, test, parameter = named.groups()
    if not (ROOT / path).is_file() or test not in functions_of(path):
        return f"there is no {path}::{test}"
    if parameter is not None and "parametrize" not in functions_of(path)[test]:
        return f"{test} has no parameters"
    if parameter is not None and f'"{parameter}"' not in (ROOT / path).read_text(encoding="utf-8"):
        return f"{test} knows no {parameter!r}"
    return None


@pytest.mark.parametrize("row", ROWS, ids=[str(number) for number in range(len(ROWS))])
def test_every_row_has_a_test_that_exists(row: list[str]) -> None:
    assert what_is_wrong_with(row) is None, " | ".join(row)


@pytest.mark.parametrize(
    "row",
    [
        ["a feature", "[how](x.md)", ""],
        ["a feature", "`how`", "`tests/test_features.py::test_no_row_is_there_twice`"],
        ["a feature", "[how](x.md)", "it works"],
        ["a feature", "[how](x.md)", "`tests/test_features.py::test_of_nothing`"],
        ["a feature", "[how](x.md)", "`tests/test_nothing.py::test_of_nothing`"],
        ["a feature", "[how](x.md)", "`tests/test_features.py::test_no_row_is_there_twice[1]`"],
        ["a feature", "[how](x.md)", "`tests/test_examples.py::test_an_example[nothing.py]`"],
    ],
    ids=["none", "page", "words", "test", "file", "parameters", "parameter"],
)
def test_a_row_without_one_is_noticed(row: list[str]) -> None:
    assert what_is_wrong_with(row) is not None


def test_no_row_is_there_twice() -> None:
    for heading, rows in TABLES.items():
        features = [row[0] for row in rows]
        assert sorted(features) == sorted(set(features)), f"under {heading!r}"


# --- nothing is without a row ---------------------------------------------------------------------


def named_under(heading: str) -> set[str]:
    """The first names in backticks, one of each row."""
    names = [re.match(r"`([\w.]+)`", row[0]) for row in TABLES[heading]]
    assert all(names), f"a row under {heading!r} does not begin with its name"
    return {name[1] for name in names if name is not None}


def public(*modules: str) -> list[Any]:
    return [getattr(trio_voice, name) for module in modules for name in trio_voice._PUBLIC[module]]


def fields_of(*classes: Any) -> set[str]:
    return {f"{each.__name__}.{field.name}" for each in classes for field in attrs.fields(each)}


def test_every_public_name_has_a_row() -> None:
    assert named_under("Public names") == set(trio_voice._MODULE_OF)


def test_every_method_and_property_of_a_session_has_a_row() -> None:
    shown, methods = named_under("What a session shows"), named_under("Session methods") - {"connect"}
    assert shown | methods == {name for name in dir(RealtimeSession) if not name.startswith("_")}
    assert not shown & methods


def test_every_event_has_a_row() -> None:
    assert named_under("Session events") == set(EVENT_NAMES)


def test_every_member_of_an_enumeration_has_a_row() -> None:
    kinds = [each for each in public(*trio_voice._PUBLIC) if isinstance(each, enum.EnumMeta)]
    assert len(kinds) >= 3
    members: set[str] = {f"{kind.__name__}.{name}" for kind in kinds for name in kind.__members__}
    assert named_under("Capabilities and states") == members


def test_every_option_has_a_row() -> None:
    classes = [each for each in public("config", "agent", "agent_settings") if attrs.has(each)]
    assert len(classes) >= 7
    tools = {name for name in fields_of(FunctionTool) if name.partition(".")[2] not in NOT_OPTIONS}
    assert named_under("Options") == fields_of(*classes) | tools


def test_every_figure_has_a_row() -> None:
    assert named_under("Figures and turns") == fields_of(SessionMetrics, ConversationTurn)


def test_every_example_has_a_row() -> None:
    named = {name for row in TABLES["Examples"] for name in re.findall(r"`examples/(\w+\.py)`", row[1])}
    assert named == {path.name for path in (ROOT / "examples").glob("*.py")}
