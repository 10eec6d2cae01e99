"""The ledger against a list of what was done to it."""

from __future__ import annotations

from hypothesis import given, strategies as st

from trio_voice.tool_ledger import ToolLedger

deeds = st.lists(st.tuples(st.sampled_from(["begin", "finish"]), st.sampled_from(["a", "b", "c"]), st.text()))


@given(deeds)
def test_a_call_begins_once_and_its_first_result_stands(done: list[tuple[str, str, str]]) -> None:
    ledger, begun, results = ToolLedger(), set[str](), dict[str, str]()
    for deed, call_id, output in done:
        if deed == "begin":
            assert ledger.begin(call_id) is (call_id not in begun)
            begun.add(call_id)
        else:
            assert ledger.finish(call_id, output) is (call_id in begun and call_id not in results)
            if call_id in begun:
                results.setdefault(call_id, output)
    assert ledger.results == {call_id: results.get(call_id) for call_id in begun}
    assert ledger.running is (begun != set(results))


def test_nobody_waits_for_a_call_that_was_forgotten() -> None:
    ledger = ToolLedger()
    ledger.begin("one")
    ledger.begin("other")
    ledger.forget("one")
    assert ledger.running
    ledger.finish("other", "found")
    assert not ledger.running
    assert ledger.finish("one", "too late"), "its end is recorded all the same"
    ledger.forget("other")
    assert not ledger.is_forgotten("other"), "what has ended needs no forgetting"
