"""What is told of each kind of node and answer, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from tests.pathinfo.scripted import KEY, Scripted, info_of
from tests.support.virtual_clock import virtual_clock
from tvixstore.errors import StoreError, Unavailable, Untrusted
from tvixstore.explain import Explanations, Request, found
from tvixstore.metrics import Metrics
from tvixstore.nix import nixbase32
from tvixstore.pathinfo import PathInfoService
from tvixstore.pathinfo.breaker import BreakerPathInfoService
from tvixstore.pathinfo.cached import CachedPathInfoService
from tvixstore.pathinfo.chaos import ChaosPathInfoService
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.pathinfo.limit import LimitPathInfoService
from tvixstore.pathinfo.metered import MeteredPathInfoService
from tvixstore.pathinfo.names import NamesPathInfoService
from tvixstore.pathinfo.negative import NegativePathInfoService
from tvixstore.pathinfo.optional import OptionalPathInfoService
from tvixstore.pathinfo.racing import RacingPathInfoService
from tvixstore.pathinfo.retry import RetryPathInfoService
from tvixstore.pathinfo.timeout import TimeoutPathInfoService
from tvixstore.pathinfo.traced import TracedPathInfoService
from tvixstore.policy import tracing
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.chaos import Chaos, Outcome
from tvixstore.policy.hedge import Hedging
from tvixstore.policy.limit import Limit
from tvixstore.policy.negative import Absences
from tvixstore.policy.retry import Retry
from tvixstore.policy.timeout import Timeout
from tvixstore.policy.tracing import Label

DOWN = Unavailable("connection refused")


def node(name: str, kind: str, service: PathInfoService) -> PathInfoService:
    return TracedPathInfoService(service, Label(name, kind))


def leaf(name: str, **script: Any) -> PathInfoService:
    return node(name, "nix", Scripted(**script))


def race(members: dict[str, PathInfoService], hedge: float = 0.0) -> PathInfoService:
    racing = RacingPathInfoService(list(members.values()), list(members), Hedging(hedge))
    return node("root/race", "race", racing)


async def dry_run(service: PathInfoService) -> dict[str, Any]:
    document = await Explanations().document(KEY, service, dry_run=True)
    assert document is not None
    run: dict[str, Any] = document["dry_run"]
    return run


def steps(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for step in told["steps"]:
        yield step
        yield from steps(step)


def outcomes(told: dict[str, Any]) -> dict[str, str]:
    return {step["node"]: step["outcome"] for step in steps(told)}


def notes(told: dict[str, Any]) -> dict[str, str]:
    return {note["code"]: note["text"] for step in steps(told) for note in step["notes"]}


@virtual_clock
async def test_a_race_tells_who_won_and_who_was_cancelled() -> None:
    told = await dry_run(race({"fast": leaf("fast"), "slow": leaf("slow", after=None)}))
    assert outcomes(told) == {"root/race": "present", "fast": "present", "slow": "cancelled"}
    assert notes(told)["race.won"] == "fast was first"
    assert told["summary"].startswith("present: fast had it")
    assert "slow cancelled" in told["summary"]


@virtual_clock
async def test_a_hedged_member_and_one_that_was_not_asked_are_told() -> None:
    members = {
        "hangs": leaf("hangs", after=None),
        "has": leaf("has", after=0.5),
        "idle": leaf("idle"),
    }
    told = await dry_run(race(members, hedge=2.0))
    assert notes(told)["race.hedge"] == "has asked as well: no answer from hangs within 2 s"
    assert notes(told)["race.not_asked"] == "not asked: idle"


@virtual_clock
async def test_absent_from_memory_tells_for_how_long() -> None:
    inner = leaf("far", says=None)
    service = node("root/negative", "negative", NegativePathInfoService(inner, Absences(60.0)))
    assert outcomes(await dry_run(service)) == {"root/negative": "absent", "far": "absent"}
    await asyncio.sleep(17)
    told = await dry_run(service)
    assert outcomes(told) == {"root/negative": "absent"}
    ((note,),) = [step["notes"] for step in told["steps"]]
    assert note == {
        "code": "memory.absent",
        "text": "remembered as absent for 43 s more",
        "seconds": 43.0,
    }
    assert "remembered as absent for 43 s more" in told["summary"]


@virtual_clock
async def test_a_breaker_tells_when_it_opens_that_it_is_open_and_that_it_probes() -> None:
    far = Scripted(says=DOWN)
    guarded = BreakerPathInfoService(node("far", "nix", far), Breaker(failures=1, open_for=30))
    service = node("far/breaker", "breaker", guarded)
    both = FallbackPathInfoService([service, leaf("near")], ["far", "near"])
    group = node("root", "fallback", both)
    assert "breaker.opened" in notes(await dry_run(group))
    await asyncio.sleep(18)
    told = await dry_run(group)
    assert notes(told)["breaker.open"] == "left alone for 12 s more"
    assert "far" not in outcomes(told)
    assert "connection refused" in next(
        step["reason"] for step in steps(told) if step["node"] == "far/breaker"
    )
    assert told["summary"].startswith("present: near had it")
    assert "far skipped (left alone for 12 s more)" in told["summary"]
    await asyncio.sleep(13)
    far.says = info_of()
    told = await dry_run(group)
    assert {"breaker.probe", "breaker.closed"} <= notes(told).keys()


@virtual_clock
async def test_a_timeout_tells_how_long_it_waited_and_a_retry_how_often() -> None:
    timed = TimeoutPathInfoService(leaf("far", after=None), Timeout(5.0))
    tried = RetryPathInfoService(node("far/timeout", "timeout", timed), Retry(attempts=2))
    told = await dry_run(node("far/retry", "retry", tried))
    attempts = [step for step in steps(told) if step["node"] == "far/timeout"]
    assert [step["reason"] for step in attempts] == ["no answer within 5 s"] * 2
    assert notes(told)["retry"].startswith("attempt 2 of 2, after")
    assert outcomes(told) == {"far/retry": "unknown", "far/timeout": "unknown", "far": "cancelled"}
    assert told["summary"].startswith("unknown: far could not say (no answer within 5 s)")


@virtual_clock
async def test_a_member_that_eats_up_its_share_of_a_lookup_is_named() -> None:
    members = [leaf("hangs", after=None), leaf("has"), leaf("idle")]
    service = FallbackPathInfoService(members, ["hangs", "has", "idle"], 10.0)
    told = await dry_run(node("root", "fallback", service))
    assert notes(told)["lookup_timeout"] == "hangs had no answer within its 5 s"
    assert notes(told)["fallback.not_asked"] == "not asked: idle"


@virtual_clock
async def test_who_is_not_to_be_trusted_is_not_believed() -> None:
    liar = leaf("liar", says=Untrusted("no trusted signature (evil-1)"))
    told = await dry_run(race({"liar": liar, "empty": leaf("empty", says=None)}))
    assert outcomes(told)["liar"] == "rejected"
    assert "liar is not believed (no trusted signature (evil-1))" in told["summary"]
    assert "empty had nothing" in told["summary"]


@virtual_clock
async def test_an_optional_member_tells_that_its_failure_does_not_count() -> None:
    breaker = Breaker(failures=1)
    guarded = node(
        "far/breaker", "breaker", BreakerPathInfoService(leaf("far", says=DOWN), breaker)
    )
    optional = node("far/optional", "optional", OptionalPathInfoService(guarded, "far", breaker))
    told = await dry_run(race({"far": optional, "main": leaf("main", says=None)}))
    assert told["outcome"] == "skipped"
    assert "optional.skipped" in notes(told)


@virtual_clock
async def test_what_is_not_wanted_by_its_name_limited_or_broken_on_purpose_says_so() -> None:
    unwanted = NamesPathInfoService(leaf("far"), but=["hello-*"])
    told = await dry_run(node("far/names", "names", unwanted))
    assert notes(told)["names.unwanted"].startswith("it has hello-2.12")
    chaos = Chaos("seed", script=[(Outcome("absent"), None)])
    told = await dry_run(node("drill", "chaos", ChaosPathInfoService(leaf("far"), chaos)))
    assert notes(told) == {"chaos": "on purpose: absent"}
    limited = LimitPathInfoService(leaf("far", after=2.0), Limit.of(1, None))
    service = node("far/limit", "limit", limited)
    first, second = await asyncio.gather(
        asyncio.create_task(dry_run(service)), asyncio.create_task(dry_run(service))
    )
    assert notes(first) == {}
    assert notes(second) == {"limit.waited": "waited 2 s for its turn"}


@virtual_clock
async def test_who_joins_a_fetch_says_so_and_tells_what_it_does() -> None:
    far = leaf("far", after=2.0)
    near = node("near", "local", Scripted(says=None, puts=[]))
    cache = CachedPathInfoService(near, far)
    service = node("root", "cache", cache)
    explanations = Explanations()

    async def serve(front: str) -> Request:
        request = Request(Label(front, "request"), "get", tracing.clock())
        request.path_hash = KEY
        explanations.begin("lookup", request)
        await service.get(KEY)
        explanations.end(request, tracing.clock())
        return request

    first = asyncio.create_task(serve("first"))
    await asyncio.sleep(1)
    await asyncio.gather(first, asyncio.create_task(serve("second")))
    told = (await explanations.document(KEY, service) or {})["lookup"]
    assert told["front"] == "second"
    assert "joined" in notes(told)
    assert outcomes(told)["far"] == "present"
    assert ("near", "put") in {(step["node"], step["call"]) for step in steps(told)}
    await cache.aclose()


@virtual_clock
async def test_a_request_that_hangs_is_told_of_while_it_does() -> None:
    explanations = Explanations()
    service = race({"a": leaf("a", after=None), "b": leaf("b", says=None)})

    async def serve() -> None:
        request = Request(Label("http", "request"), "GET narinfo", tracing.clock())
        request.path_hash = KEY
        explanations.begin("lookup", request)
        await service.describe(KEY)

    task = asyncio.create_task(serve())
    await asyncio.sleep(3)
    told = (await explanations.document(KEY, service) or {})["lookup"]
    assert (told["outcome"], told["status"]) == ("waiting", None)
    assert outcomes(told) == {"root/race": "waiting", "a": "waiting", "b": "absent"}
    assert told["summary"].startswith("waiting: for ")
    assert ", for a; b had nothing" in told["summary"]
    task.cancel()
    await asyncio.wait([task])


@virtual_clock
async def test_secrets_are_shown_nowhere() -> None:
    secret = "https://user:hunter2@cache.example.org/x.narinfo?token=hunter3"
    told = await dry_run(leaf("far", says=Unavailable(f"far: {secret}: it answered 500")))
    assert "cache.example.org" in told["summary"]
    assert "hunter" not in str(told)


@virtual_clock
async def test_a_dry_run_only_describes() -> None:
    far, near = Scripted(), Scripted(says=None, puts=[])
    cache = CachedPathInfoService(near, far)
    told = await dry_run(node("root", "cache", cache))
    assert told["outcome"] == "present"
    assert {call for call, _ in [*far.calls, *near.calls]} == {"describe"}
    await cache.aclose()


async def _recorded(explanations: Explanations, path_hash: bytes, work: Callable[[], Any]) -> None:
    request = Request(Label("http", "request"), "GET narinfo", tracing.clock())
    request.path_hash = path_hash
    explanations.begin("lookup", request)
    try:
        await work()
    except StoreError as error:
        request.reason = str(error)
    explanations.end(request, tracing.clock())


@virtual_clock
async def test_what_is_kept_is_bounded_in_paths_and_in_steps() -> None:
    explanations = Explanations()
    service = leaf("far", says=None)
    for number in range(5000):
        await _recorded(explanations, number.to_bytes(20, "big"), lambda: service.describe(KEY))
    assert len(explanations.lookups) == 4096
    assert explanations.lookups.get((0).to_bytes(20, "big")) is None

    async def much() -> None:
        for _ in range(300):
            await service.describe(KEY)

    for number in range(500):
        await _recorded(explanations, b"x" + number.to_bytes(19, "big"), much)
    # 250 steps are kept of each.
    assert len(explanations.lookups) == 400
    last = b"x" + (499).to_bytes(19, "big")
    document = await explanations.document(last, service)
    assert document is not None
    assert document["path_hash"] == nixbase32.encode(last)
    assert len(document["lookup"]["steps"]) == 250
    assert document["lookup"]["left_out"] == 50


@virtual_clock
async def test_nothing_is_told_of_what_was_not_asked_for() -> None:
    assert await Explanations().document(KEY, leaf("far")) is None


@virtual_clock
async def test_a_request_that_is_over_is_not_told_what_the_next_on_its_connection_finds() -> None:
    explanations, metrics = Explanations(), Metrics()
    request = Request(Label("http", "request"), "GET nar", tracing.clock())
    request.path_hash = KEY
    explanations.begin("nar", request)
    found("its own")
    explanations.end(request, tracing.clock())
    # In the same task, and not told of.
    found("another")
    service = MeteredPathInfoService(
        Scripted(), metrics.node("pathinfo", "near"), label=Label("near", "local")
    )
    await service.describe(KEY)
    assert request.path == "its own"
    assert request.hit is None
