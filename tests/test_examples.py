"""Every example, run as it is, in a process of its own against the local server; and what it must have said."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
OUTCOMES = {
    "approval.py": (
        r"refunded 12 euros for ORD-11111\.\n",
        r"80 euros for ORD-12345\? .*\(ORD-12345: yes\)\nagent: I have refunded 80 euros",
        r"950 euros for ORD-67890\? .*\(ORD-67890: no\)\nagent: .*[Nn]ot approved",
    ),
    "customer_service.py": (
        r"user: Where is my order ORD-12345\?",
        r"tool: lookup_order → .*shipped",
        r"tool: schedule_callback → .*555-?1234",
        r"tool: transfer_to_department → .*billing department",
        r"3 turns in [\d.]+ s with C-1001",
        r"turn 2: schedule_callback\(",
    ),
    "embedding.py": (r"agent: .*packed", r"warehouse: ORD-12345 is shipped\n(.*\n)*agent: .*shipped", r"closed\n$"),
    "guardrail.py": (
        r"\(no_margins: it tells our margin\)\nagent: That is not for me to say\.",
        r"\(no_passwords: it has a password\)\nagent: Please never tell anybody your password\.\n$",
    ),
    "handoff.py": (r"\(Desk → Billing\)", r"Billing: .*red chair", r"Desk called billing"),
    "push_to_talk.py": (r"interrupted after [1-3]\.\d s", r"user: .*count from one to twenty", r"agent: One, two"),
    "recorder.py": (r"user: .*[Ww]eather", r"agent: ", r"conversation\.wav, journal\.jsonl, transcript\.txt"),
    "text_only.py": (r"agent: .*shipped",),
    "transcription_only.py": (
        r"[Ww]eather.*\n.*count from one to twenty.*\n.*[Gg]oodbye.*\n3 utterances, said by: user\n$",
    ),
}
"""By example, what its output must match."""
TYPED = {"approval.py": "yes\nno\n"}
"""By example, what a person types meanwhile."""

pytestmark = pytest.mark.speech


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """One local server for all of them: its engines take seconds to load."""
    pytest.importorskip("moonshine_voice", reason="the offline speech stack is not installed")
    command = [sys.executable, "-m", "trio_voice", "serve", "--port", "0", "--until-stdin-ends"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        word, _, address = server.stdout.readline().strip().partition(" ")
        assert word == "listening"
        yield address
        with contextlib.suppress(BrokenPipeError):
            server.stdin.close()


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(OUTCOMES)


@pytest.mark.parametrize("name", sorted(OUTCOMES))
def test_an_example(name: str, url: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", str(EXAMPLES / name)],
        cwd=tmp_path,
        env={**environment, "TRIO_VOICE_URL": url, "PYTHONIOENCODING": "utf-8"},
        input=TYPED.get(name, ""),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for pattern in OUTCOMES[name]:
        assert re.search(pattern, done.stdout), f"{pattern!r} is not in:\n{done.stdout}\n{done.stderr}"
