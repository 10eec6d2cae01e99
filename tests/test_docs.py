"""The documentation: its links lead somewhere, its examples run, its tables say what the code says.

What is done with a ```python block is said in a comment on the line before it, words apart by commas:

    <!-- same as examples/text_only.py -->      the block is that file, to the letter
    <!-- save shop.py -->                         written to the page's folder, for the blocks that follow
    <!-- run -->                                  run as a program in that folder; exit status 0
    <!-- run with the local server -->            the same; needs the offline speech stack (marker `speech`)
    <!-- test -->                                 run by pytest

A block without a comment is only parsed.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

import trio_voice
from trio_voice import channels, errors, liveness, mcp_tools, supervisor
from trio_voice.agent import RealtimeAgent
from trio_voice.agent_settings import Filler, IdlePrompts
from trio_voice.config import (
    AgentCapability,
    AudioInputConfig,
    AudioOutputConfig,
    ConnectionOptions,
    InterruptionPolicy,
    SessionState,
)
from trio_voice.dialects import CAPABILITIES, DIALECTS
from trio_voice.echo import REFERENCE_BLOCKS
from trio_voice.events import EVENT_NAMES
from trio_voice.function_tools import FunctionTool
from trio_voice.protocol.history import HistoryItem
from trio_voice.session import RealtimeSession
from trio_voice.tape import TAPE_BLOCKS
from trio_voice.tracker import ConversationTurn, DeviceMetrics, SessionMetrics, TranscriptLine
from trio_voice.usage import TokenUsage

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

_BLOCK = re.compile(r"(?:^<!-- (?P<what>[^\n]*?) -->\n)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)|\bsrc=\"([^\"]+)\"")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_QUOTED_CELL = re.compile(r"^`([^`]*)`$")
_PATH = re.compile(r"(?:src|tests|docs|scripts|benchmarks|examples)/[\w./-]+")
_OTHER_MACHINE = re.compile(r"(?<![\w.])/(?:work|home|root|Users)\b")


@attrs.frozen
class Block:
    """A Python block of a page and what is to be done with it."""

    page: str
    line: int
    doing: tuple[str, ...]
    code: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def needs_engines(self) -> bool:
        return "run with the local server" in self.doing


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        doing = tuple(word.strip() for word in (match["what"] or "").split(",") if word.strip())
        found.append(Block(page, text.count("\n", 0, match.start("code")) + 1, doing, match["code"]))
    return found


BLOCKS = [block for name in NAMES for block in blocks_of(name)]


# --- links and paths ------------------------------------------------------------------------------


def anchor_of(heading: str) -> str:
    """As the usual renderers of Markdown make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def prose_of(page: str) -> str:
    return _FENCED.sub("", (ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", NAMES)
def test_every_link_leads_somewhere(page: str) -> None:
    for first, second in _LINK.findall(prose_of(page)):
        link = first or second
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), f"{page}: {link} leads nowhere"
        if anchor:
            headings = [anchor_of(heading) for heading in _HEADING.findall(target.read_text(encoding="utf-8"))]
            assert anchor in headings, f"{page}: {link} names no heading; there are {headings}"


@pytest.mark.parametrize("page", NAMES)
def test_every_file_that_is_named_exists(page: str) -> None:
    for path in _PATH.findall(prose_of(page)):
        named = path.rstrip(".")
        assert (ROOT / named).exists(), f"{page} names {named}, which does not exist"


@pytest.mark.parametrize("page", NAMES)
def test_no_page_knows_one_machine(page: str) -> None:
    assert _OTHER_MACHINE.findall((ROOT / page).read_text(encoding="utf-8")) == []


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / first).resolve() for first, _ in _LINK.findall(prose_of("docs/README.md"))}
    pages = {page for page in PAGES if page.is_relative_to(ROOT / "docs") and page != index}
    assert pages <= linked, f"not in the index: {[page.name for page in pages - linked]}"


# --- examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS, ids=[block.place for block in BLOCKS])
def test_every_block_is_python(block: Block) -> None:
    compile(block.code, block.place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    known = ("same as ", "save ", "run", "test")
    assert all(word.startswith(known) for word in block.doing), f"{block.place}: what is {block.doing}?"


COPIES = [(block, word.removeprefix("same as ")) for block in BLOCKS for word in block.doing if "same as" in word]


@pytest.mark.parametrize(("block", "path"), COPIES, ids=[block.place for block, _ in COPIES])
def test_a_copy_of_a_file_is_that_file(block: Block, path: str) -> None:
    assert block.code == (ROOT / path).read_text(encoding="utf-8")


def test_the_readme_shows_the_example() -> None:
    assert ("README.md", "examples/text_only.py") in [(block.page, path) for block, path in COPIES]


DONE = [block for block in BLOCKS if any(word.startswith(("run", "test")) for word in block.doing)]


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, id=block.place, marks=[pytest.mark.speech] * block.needs_engines) for block in DONE],
)
def test_what_says_it_runs_runs(block: Block, tmp_path: Path) -> None:
    if block.needs_engines:
        pytest.importorskip("moonshine_voice")
    for earlier in blocks_of(block.page):
        for word in earlier.doing:
            if earlier.line <= block.line and word.startswith("save "):
                (tmp_path / word.removeprefix("save ")).write_text(earlier.code, encoding="utf-8")
    name = "test_example.py" if "test" in block.doing else "example.py"
    (tmp_path / name).write_text(block.code, encoding="utf-8")
    command = [sys.executable, "-W", "error", "-X", "dev"]
    command += ["-m", "pytest", "-q", "-p", "no:cacheprovider", name] if "test" in block.doing else [name]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "PYTEST_"))}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, f"{block.place}\n{done.stdout}\n{done.stderr}"
    if "test" in block.doing:
        assert " passed" in done.stdout


# --- tables ---------------------------------------------------------------------------------------


def table_under(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under `heading`, without its head."""
    text = (ROOT / page).read_text(encoding="utf-8")
    _, found, after = text.partition(f"\n## {heading}\n")
    assert found, f"{page} has no heading {heading!r}"
    section = after.partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[_QUOTED_CELL.sub(r"\1", cell.strip()) for cell in row.strip()[1:-1].split("|")] for row in rows[2:]]


def test_the_table_of_events_is_complete() -> None:
    rows = {row[0]: row for row in table_under("docs/reference/events.md", "Every event")}
    assert set(rows) == set(EVENT_NAMES)
    for name, event in EVENT_NAMES.items():
        fields = [field for field in event.__struct_fields__ if field != "at"]
        assert rows[name][1] == event.__name__
        assert re.findall(r"\w+", rows[name][2]) == fields, f"fields of {name}"


OPTIONS: list[type[Any]] = [
    ConnectionOptions,
    AudioInputConfig,
    AudioOutputConfig,
    RealtimeAgent,
    InterruptionPolicy,
    IdlePrompts,
    Filler,
]


@pytest.mark.parametrize("options", OPTIONS, ids=[options.__name__ for options in OPTIONS])
def test_every_option_is_there_with_its_default_and_its_limits(options: type[Any]) -> None:
    rows = {row[0]: row for row in table_under("docs/reference/configuration.md", options.__name__)}
    made = options()
    assert list(rows) == [field.name for field in attrs.fields(options)], "each option, in the order of the code"
    for name, row in rows.items():
        value = getattr(made, name)
        if row[1] not in ("all", "server VAD", f"{type(value).__name__}()"):
            assert row[1] == repr(value).replace("'", '"'), f"default of {name}"
        field = getattr(attrs.fields(options), name)
        limits = re.fullmatch(r"([\d.]+)\.\.([\d.]+)", row[2])
        assert (limits is not None) or field.validator is None, f"{name} has limits that the table lacks"
        if limits is not None:
            check_limits(options, name, float(limits[1]), float(limits[2]))


def check_limits(options: type[Any], name: str, low: float, high: float) -> None:
    step = 0.01 if name in ("speed", "reconnect_backoff_multiplier") else 1
    number = float if step < 1 else int
    companion = {"capacity_ms": 3_600_000} if options is AudioOutputConfig and name == "prebuffer_ms" else {}
    companion = {"prebuffer_ms": 0} if name == "longest_prebuffer_ms" else companion
    companion = {"prebuffer_ms": 2000} if name == "shortest_prebuffer_ms" else companion
    companion = {"prebuffer_ms": 0} if options is AudioOutputConfig and name == "capacity_ms" else companion
    for inside in (low, high):
        options(**{name: number(inside)}, **companion)
    for outside in (low - step, high + step):
        with pytest.raises(errors.ConfigError, match=name):
            options(**{name: number(outside)}, **companion)


def test_the_table_of_capabilities_is_complete() -> None:
    rows = table_under("docs/reference/configuration.md", "AgentCapability")
    assert [row[0] for row in rows] == [capability.value for capability in AgentCapability]


def test_the_table_of_channels_says_the_capacities() -> None:
    rows = {row[0]: row[2] for row in table_under("docs/reference/channels.md", "The table")}
    assert rows == {
        "frames": f"{AudioInputConfig().capacity_ms} ms",
        "control": f"{channels.CONTROL_CAPACITY} items",
        "playback": f"{channels.PLAYBACK_CAPACITY} items",
        "reference": f"{REFERENCE_BLOCKS} blocks",
        "tape": f"{TAPE_BLOCKS} blocks",
        "tool calls": f"{channels.TOOL_CAPACITY} items",
        "MCP calls": f"{mcp_tools.CALLS_CAPACITY} items for each",
        "checks": f"{channels.CHECK_CAPACITY} items",
        "inbox": f"{channels.INBOX_CAPACITY} items",
        "session events": f"{channels.EVENTS_CAPACITY} for each listener",
    }


def test_the_table_of_dialects_is_that_of_the_code() -> None:
    page = "docs/reference/dialects.md"
    meanings = {row[0]: row[1].strip("`") for row in table_under(page, "What a server may lack")}
    assert meanings == {name: meaning.strip("`") for name, meaning in CAPABILITIES.items()}
    rows = {row[0]: row[1:] for row in table_under(page, "The table")}
    assert list(rows) == list(DIALECTS)
    for name, dialect in DIALECTS.items():
        limit = str(dialect.session_limit_min or "")
        lacks, unknown = (sorted(names.split(", ")) if names else [] for names in rows[name][6:8])
        model = dialect.model or ("you name it" if dialect.needs_model else "")
        assert rows[name][:4] == [dialect.url, model, dialect.auth, dialect.shape]
        assert [rates_told(text) for text in rows[name][4:6]] == [
            list(dialect.input_rates_hz), list(dialect.output_rates_hz)
        ]  # fmt: skip
        assert (lacks, unknown) == (sorted(dialect.lacks), sorted(dialect.unknown))
        assert rows[name][8:] == ["yes" if dialect.native_resume else "", limit]


def rates_told(text: str) -> list[int]:
    low, is_range, high = text.partition(" to ")
    return list(range(int(low), int(high) + 1)) if is_range else [int(rate) for rate in text.split(", ")]


def test_every_counter_of_drops_is_explained() -> None:
    session = (ROOT / "src/trio_voice/session_figures.py").read_text(encoding="utf-8")
    counters = set(re.findall(r'dropped\["(\w+)"\]', session)) | {"frames", "events"}
    rows = table_under("docs/reference/channels.md", "Where drops are counted")
    assert {row[0] for row in rows} == counters


def test_every_error_is_explained() -> None:
    classes = {
        name: error
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, errors.TrioVoiceError)
    }
    rows = {row[0]: row[1] for row in table_under("docs/reference/errors.md", "Every error")}
    assert rows == {name: error.__bases__[0].__name__ for name, error in classes.items()}


def test_every_method_and_state_of_a_session_is_explained() -> None:
    page = "docs/reference/session.md"
    public = {name for name in dir(RealtimeSession) if not name.startswith("_")}
    rows = table_under(page, "Methods") + table_under(page, "What it shows")
    assert {re.split(r"[(`]", row[0])[0] for row in rows} == public
    assert [row[0] for row in table_under(page, "States")] == [state.value for state in SessionState]
    for heading, values in (
        ("Metrics", SessionMetrics),
        ("ConversationTurn", ConversationTurn),
        ("TranscriptLine", TranscriptLine),
        ("DeviceMetrics", DeviceMetrics),
        ("TokenUsage", TokenUsage),
        ("HistoryItem", HistoryItem),
    ):
        assert [row[0] for row in table_under(page, heading)] == [field.name for field in attrs.fields(values)]


def test_every_public_name_is_in_the_reference() -> None:
    source = (ROOT / "src/trio_voice/__init__.py").read_text(encoding="utf-8")
    reference = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    names = re.findall(r"(\w+) as \w+", source)
    assert len(names) > 20
    assert [name for name in names if not re.search(rf"\b{name}\b", reference)] == []


def test_the_tool_decorator_s_options_are_explained() -> None:
    rows = {row[0]: row[1] for row in table_under("docs/howto/write-a-tool.md", "Options")}
    fields = attrs.fields(FunctionTool)
    options = {field.name: repr(field.default).replace("'", '"') for field in fields}
    for not_an_option in ("parameters", "function", "accepted"):
        del options[not_an_option]
    assert rows == options | {"name": "the function's", "description": "the docstring's"}


def test_the_tests_that_prove_the_invariants_exist() -> None:
    page = (ROOT / "docs/discussion/invariants.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) >= 9
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path} has no {test}"


def test_the_figures_of_liveness_and_rotation_are_those_of_the_code() -> None:
    assert liveness.BUSY_INTERVAL_S == 2, "see reconnecting.md, configuration.md"
    assert liveness.BUSY_INTERVAL_S + liveness.BUSY_TIMEOUT_S < 5, "see reconnecting.md, configuration.md, README.md"
    assert supervisor.HEALTHY_AFTER_S == 10, "see reconnecting.md, configuration.md"
    assert supervisor.LAST_MOMENT_S == supervisor.SHORTEST_LIFETIME_S == 10, "see reconnecting.md"
    assert ConnectionOptions().session_margin_ms == 120_000, "see reconnecting.md"


UNITS = re.compile(r"`(?:\w+\.)*(\w+_(?:ms|s|hz|samples))`")


@pytest.mark.parametrize("page", NAMES)
def test_every_quantity_that_is_named_exists(page: str) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py")))
    for name in UNITS.findall(prose_of(page)):
        assert re.search(rf"\b{name}\b", code), f"{page} names {name}, which the code does not know"


def test_every_dependency_has_its_reason() -> None:
    page = prose_of("docs/discussion/dependencies.md")
    declared = re.findall(r'^ +"([A-Za-z][\w-]*)[=<>~]', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    declared += ["pocketsphinx", "espeakng-loader", "pywebrtc-audio", "opentelemetry-api"]
    assert len(declared) > 20
    for name in declared:
        assert f"| {name} |" in page, f"why is {name} there?"


def test_the_package_s_version_has_an_entry_in_the_changelog() -> None:
    from importlib.metadata import version

    assert trio_voice.__name__ == "trio_voice"
    assert f"## {version('trio-voice')}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
