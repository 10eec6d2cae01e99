"""An exported conversation is the same when it was imported; what is none is refused, and the message says where."""

from __future__ import annotations

import copy
import json
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from trio_voice.errors import ConfigError
from trio_voice.history_export import MAX_ITEMS, MAX_TEXT, VERSION, export_items, read, restore
from trio_voice.protocol.history import Entry, History
from trio_voice.protocol.resume import CONTINUES, replay

PICTURE = "data:image/png;base64,iVBORw0KGgo="

texts = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(["one", "two,", "three", "今日は", "天気", "สวัสดี", "naïve", "😀"]), max_size=8).map(
        " ".join
    ),
)
moments = st.integers(0, 10_000_000).map(lambda ms: ms / 1000)


@st.composite
def records(draw: st.DrawFn) -> list[Entry]:
    entries: list[Entry] = []
    for number in range(draw(st.integers(0, 8))):
        at = draw(moments)
        match draw(st.sampled_from(["message", "cut", "call", "mcp_list_tools"])):
            case "message":
                role = draw(st.sampled_from(["user", "assistant", "system"]))
                images = (PICTURE,) * draw(st.integers(0, 2)) if role == "user" else ()
                spoken = draw(st.booleans())
                entries.append(Entry(f"m{number}", "message", role, draw(texts), spoken, images=images, at=at))
            case "cut":
                share = draw(st.floats(0, 1, exclude_max=True))
                entry = Entry(f"m{number}", "message", "assistant", draw(texts), True, True, share, True, at=at)
                entries.append(entry)
            case "call":
                name, call_id = draw(st.sampled_from(["lookup", "order"])), f"call_{number}"
                call = Entry(f"c{number}", "function_call", call_id=call_id, name=name, arguments=draw(texts), at=at)
                entries.append(call)
                if draw(st.booleans()):
                    output = draw(texts)
                    entries.append(Entry(f"o{number}", "function_call_output", call_id=call_id, output=output, at=at))
            case kind:
                entries.append(Entry(f"x{number}", kind, at=at))
    return entries


@given(records(), moments, moments)
def test_export_json_import_export_gives_the_same_items(
    entries: list[Entry], began_at: float, begins_again_at: float
) -> None:
    items = export_items(entries, began_at)
    written = json.dumps({"version": VERSION, "items": items})
    history = History()
    restore(read(json.loads(written)), history, begins_again_at)
    assert export_items(history, begins_again_at) == items
    original = [attrs.evolve(entry.shown(), at=0.0) for entry in entries if entry.text != CONTINUES]
    assert [attrs.evolve(entry.shown(), at=0.0) for entry in history] == original


@given(records())
def test_a_server_is_told_the_same_of_the_original_and_of_the_import(entries: list[Entry]) -> None:
    original, imported = History(), History()
    for entry in entries:
        original.restore(entry)
    restore(read({"version": VERSION, "items": export_items(entries, 0.0)}), imported, 0.0)
    assert replay(imported) == replay(original)


def test_the_notes_about_lost_connections_are_not_exported() -> None:
    entries = [Entry("a", "message", "system", CONTINUES), Entry("b", "message", "system", "Be brief.")]
    assert [item["id"] for item in export_items(entries, 0.0)] == ["b"]


def message(**changed: Any) -> dict[str, Any]:
    return {"id": "m", "kind": "message", "role": "user", "text": "one two", "heard_text": "one two"} | changed


CALL = {"id": "c", "kind": "function_call", "call_id": "call_1", "name": "lookup", "arguments": "{}"}
OUTPUT = {"id": "o", "kind": "function_call_output", "call_id": "call_1", "output": "1"}


@pytest.mark.parametrize(
    ("items", "path"),
    [
        ([message(), message()], r"\$\.items\[1\]\.id 'm' occurs twice"),
        ([message(id="")], r"\$\.items\[0\]\.id"),
        ([message(id=3)], r"\$\.items\[0\]\.id"),
        ([{"kind": "message"}], r"id.*\$\.items\[0\]"),
        ([message(), message(id="n", role="agent")], r"\$\.items\[1\]\.role"),
        ([message(role="")], r"\$\.items\[0\]\.role is missing"),
        ([message(heard_text="two")], r"\$\.items\[0\]\.heard_text"),
        ([message(heard_text="one")], r"\$\.items\[0\]\.truncated"),
        ([message(truncated=True)], r"\$\.items\[0\]\.truncated"),
        ([message(text="a" * (MAX_TEXT + 1))], r"\$\.items\[0\]\.text"),
        ([message(images=["http://example.org/a.png"])], r"\$\.items\[0\]\.images: images\[0\]"),
        ([message(role="system", images=[PICTURE])], r"\$\.items\[0\]\.images"),
        ([message(at_s=float("nan"))], r"\$\.items\[0\]\.at_s"),
        ([message(at_s="soon")], r"\$\.items\[0\]\.at_s"),
        ([CALL | {"call_id": ""}], r"\$\.items\[0\]\.call_id is missing"),
        ([CALL | {"name": ""}], r"\$\.items\[0\]\.name is missing"),
        ([CALL, CALL | {"id": "d"}], r"\$\.items\[1\]\.call_id 'call_1' occurs twice"),
        ([OUTPUT], r"\$\.items\[0\]\.call_id 'call_1' is that of no function_call"),
        ([CALL, OUTPUT, OUTPUT | {"id": "p"}], r"\$\.items\[2\]\.call_id 'call_1' is answered twice"),
        ([message(text="\ud800", heard_text="\ud800")], r"\$\.items\[0\]\.text"),
        ([CALL, OUTPUT | {"output": "\ud800"}], r"\$\.items\[1\]\.output"),
        ([message()] * (MAX_ITEMS + 1), r"\$\.items"),
        ("items", r"\$\.items"),
        ([7], r"\$\.items\[0\]"),
    ],
)
def test_a_wrong_item_is_refused_with_its_path(items: Any, path: str) -> None:
    with pytest.raises(ConfigError, match=path):
        read({"version": VERSION, "items": items})


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"version": 2}, r"\$\.version"),
        ({"version": "1"}, r"\$\.version"),
        ({"duration_s": -1.0}, r"\$\.duration_s"),
        ({"metadata": []}, r"\$\.metadata"),
    ],
)
def test_a_wrong_export_is_refused_with_its_path(changed: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError, match=path):
        read({"version": VERSION, "items": []} | changed)


@pytest.mark.parametrize("export", [{}, {"items": []}, {"version": VERSION}, [], "history", None, 7])
def test_what_is_no_export_is_refused(export: Any) -> None:
    with pytest.raises(ConfigError, match="history"):
        read(export)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@given(
    st.sampled_from([*message(), "call_id", "name", "output", "at_s", "images", "spoken"]),
    json_values,
    st.sampled_from([message(), CALL, OUTPUT]),
)
def test_nothing_but_a_config_error_comes_of_nonsense(field: str, value: Any, item: dict[str, Any]) -> None:
    spoilt = copy.deepcopy(item) | {field: value}
    history, refusals = History(), []
    try:
        restore(read({"version": VERSION, "items": [CALL | {"id": "first"}, spoilt]}), history, 0.0)
    except ConfigError as failure:
        refusals.append(str(failure))
    assert len(history) == (0 if refusals else 2)
    assert all("$.items[" in refusal for refusal in refusals)
