"""What the bar of a copy says of what its composition waits for."""

from __future__ import annotations

from dataclasses import replace

from rich.progress import Progress as RichProgress

from tvixstore.activity import Progress
from tvixstore.cli.progress import Bars

WAITED = Progress(
    kind="nar",
    what="/nix/store/x-hello",
    source="mirror",
    phase="downloading",
    reason=None,
    bytes=25,
    total=100,
    rate=5.0,
    waiting=1.0,
    readers=1,
    joined=False,
)


def test_the_bar_says_what_is_waited_for_until_it_is_over() -> None:
    progress = RichProgress(disable=True)
    bars = Bars(progress)
    [task] = progress.tasks
    bars.waits(replace(WAITED, phase="connecting", total=None))
    assert task.fields["current"] == "(connecting from mirror)"
    bars.waits(WAITED)
    bars.waits(replace(WAITED, kind="lookup", what="y"))
    assert task.fields["current"] == "(downloading 25% from mirror)"
    bars.waits(replace(WAITED, kind="retry", what="", source="other", phase="pausing", total=None))
    assert task.fields["current"] == "(pausing from other)"
    bars.waits(replace(WAITED, kind="retry", what="", source="other", phase="done"))
    bars.waits(replace(WAITED, phase="left"))
    assert task.fields["current"] == ""
