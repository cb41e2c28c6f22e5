from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import Unavailable
from tvixstore.policy.chaos import KINDS, STALL, Chaos, ChaoticStream, Kind, Outcome
from tvixstore.streams import BytesStream

PARTS = [bytes([number]) * 10 for number in range(1, 6)]
WHOLE = b"".join(PARTS)


def test_the_same_seed_has_the_same_faults_whatever_the_calls_were() -> None:
    rates: dict[Kind, float] = {"error": 0.2, "absent": 0.2, "stall": 0.1}
    one, other = (Chaos("7", rates, latency=1.0) for _ in range(2))
    drawn = [one.draw() for _ in range(500)]
    assert [other.draw() for _ in range(500)] == drawn
    assert [Chaos("8", rates, latency=1.0).draw() for _ in range(500)] != drawn
    assert one.met == Counter(outcome.kind for outcome in drawn)


def test_faults_come_at_their_rates() -> None:
    chaos = Chaos("1", {"error": 0.25, "absent": 0.05}, latency=1.0)
    drawn = [chaos.draw() for _ in range(4000)]
    assert 850 < chaos.met["error"] < 1150
    assert 130 < chaos.met["absent"] < 280
    assert chaos.met["error"] + chaos.met["absent"] + chaos.met["ok"] == 4000
    assert 0.9 < sum(outcome.delay for outcome in drawn) / 4000 < 1.1


def test_a_script_is_followed_by_call_number_and_then_all_is_well() -> None:
    chaos = Chaos(script=[(Outcome("error"), 2), (Outcome("ok"), 1), (Outcome("absent"), 1)])
    kinds = [chaos.draw().kind for _ in range(6)]
    assert kinds == ["error", "error", "ok", "absent", "ok", "ok"]
    for_ever = Chaos(script=[(Outcome("ok"), 1), (Outcome("stall"), None)])
    assert [for_ever.draw().kind for _ in range(4)] == ["ok", "stall", "stall", "stall"]


@virtual_clock
async def test_a_delay_takes_its_time() -> None:
    chaos = Chaos(script=[(Outcome("ok", 2.0), 1), (Outcome("error", 3.0), 1)])
    await chaos.meet()
    assert now() == 2.0
    with pytest.raises(Unavailable, match="chaos: error"):
        await chaos.meet()
    assert now() == 5.0


@virtual_clock
async def test_a_stall_ends_after_an_hour_so_that_nothing_hangs_for_ever() -> None:
    with pytest.raises(Unavailable, match="stalled"):
        await Chaos(script=[(Outcome("stall"), 1)]).meet("absent")
    assert now() == STALL


@given(st.sampled_from(KINDS[3:]), st.integers(0, 9), st.integers(1, 5))
def test_a_fault_strikes_a_stream_however_short_it_is(kind: Kind, at: int, parts: int) -> None:
    @virtual_clock
    async def run() -> None:
        whole = b"".join(PARTS[:parts])
        stream = ChaoticStream(BytesStream(*PARTS[:parts]), Outcome(kind, at=at))
        came = b""
        try:
            async with stream:
                async for part in stream:
                    assert part
                    came += part
        except Unavailable:
            assert kind in ("stall", "disconnect")
            assert whole.startswith(came) and came != whole
        else:
            assert came != whole
            assert len(came) < len(whole) if kind == "truncate" else len(came) == len(whole)

    run()


@virtual_clock
async def test_a_stream_that_nothing_strikes_is_as_it_was() -> None:
    assert await ChaoticStream(BytesStream(*PARTS), Outcome()).read_all() == WHOLE
