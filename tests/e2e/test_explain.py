"""Why an answer was what it was: told over HTTP and by the command, after what a client did."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.caches import files_of, make_path
from tests.support.command import Done, tvix_store
from tests.support.composed import grpc_target, laptop, office
from tests.support.daemon import Daemon, substituter
from tests.support.upstream_server import Reply, Seen, UpstreamServer
from tvixstore.nix import SecretKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient

ABSENT = "0" * 32


def steps(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for step in told["steps"]:
        yield step
        yield from steps(step)


async def document(daemon: Daemon, digits: str, query: str = "") -> dict[str, Any]:
    answer = await daemon.get(f"/_tvix/explain/{digits}{query}")
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    told: dict[str, Any] = json.loads(answer.body)
    return told


async def explain(daemon: Daemon, *arguments: str) -> Done:
    """The command, on a compose file that names the daemon's present address."""
    asking = daemon.folder / "asking"
    asking.mkdir(exist_ok=True)
    target = grpc_target(daemon)
    (asking / "compose.toml").write_text(f'[daemon]\ngrpc = "{target}"\n')
    return await tvix_store("explain", *arguments, cwd=asking)


async def test_after_a_client_has_copied_a_path_it_is_told_who_had_it_and_what_it_cost(
    tmp_path: Path, upstreams: Upstreams, app: str, client: NixClient
) -> None:
    async with UpstreamServer() as empty, UpstreamServer() as main:
        main.serve_directory(upstreams.of("xz", app))
        members = [
            substituter(empty.url, upstreams.key, name="empty", priority=10),
            substituter(main.url, upstreams.key, name="main", priority=20),
        ]
        async with Daemon(tmp_path / "tvix", members, daemon={"grpc": "127.0.0.1:0"}) as daemon:
            await client.copy(daemon.url, app)
            await daemon.settled()
            base = app.removeprefix("/nix/store/")
            told = await document(daemon, base)
            assert told["store_path"] == app
            assert told["path_hash"] == base[:32]
            lookup, nar = told["lookup"], told["nar"]
            assert (lookup["front"], lookup["status"]) == ("http", 200)
            assert lookup["request"] == "GET narinfo"
            assert nar["request"] == "GET nar"
            asked = {step["node"]: step["outcome"] for step in steps(lookup)}
            assert asked["local"] == asked["empty"] == "absent"
            assert asked["main"] == "present"
            assert lookup["summary"].startswith("present: main had it, ")
            (download,) = [step for step in steps(nar) if step["kind"] == "download"]
            assert (download["node"], download["outcome"]) == ("main", "done")
            assert download["bytes"] > 0
            assert any(note["code"] == "http" for note in download["notes"])
            assert nar["bytes"] > 0
            done = await explain(daemon, app)
            assert done.code == 0, done.err
            assert "present: main had it, " in done.out
            assert "main (download)" in done.out
            # Now it is here.
            await daemon.get(f"/{base[:32]}.narinfo")
            again = await document(daemon, base[:32])
            assert again["lookup"]["summary"].startswith("present: local had it, ")


async def test_an_answer_of_503_names_who_lied_who_was_left_alone_and_who_had_nothing(
    tmp_path: Path,
) -> None:
    key, other = SecretKey.generate("main-1"), SecretKey.generate("evil-1")
    files = files_of([make_path("hello-2.12", other)])
    digits = make_path("hello-2.12", other).digits

    def lie(seen: Seen) -> Reply:
        return Reply(body=files[seen.path]) if seen.path in files else Reply(status=404)

    async with (
        UpstreamServer() as evil,
        UpstreamServer() as dead,
        UpstreamServer() as empty,
    ):
        evil.otherwise(lie)
        dead.otherwise(lambda _: Reply(status=500))
        public = str(key.public_key)
        members = [
            substituter(evil.url, public, name="evil"),
            substituter(dead.url, public, name="dead", breaker_failures=1),
            substituter(empty.url, public, name="empty"),
        ]
        async with Daemon(tmp_path, members, daemon={"grpc": "127.0.0.1:0"}) as daemon:
            assert (await daemon.get(f"/{ABSENT}.narinfo")).status == 503
            assert (await daemon.get(f"/{digits}.narinfo")).status == 503
            told = (await document(daemon, digits))["lookup"]
            assert (told["status"], told["outcome"]) == (503, "unknown")
            outcomes = {step["node"]: step["outcome"] for step in steps(told)}
            assert outcomes["evil"] == "rejected"
            assert outcomes["empty"] == "absent"
            # It was not even asked.
            assert "dead" not in outcomes
            assert "dead skipped (left alone for " in told["summary"]
            assert "evil is not believed" in told["summary"]
            done = await explain(daemon, digits)
            assert done.code == 4
            assert "evil-1" in done.out


async def test_what_was_not_asked_for_is_looked_up_without_a_download(tmp_path: Path) -> None:
    path = make_path("hello-2.12", SecretKey.generate("main-1"))
    async with UpstreamServer() as main:
        files = files_of([path])
        main.otherwise(
            lambda seen: Reply(body=files[seen.path]) if seen.path in files else Reply(status=404)
        )
        members = [substituter(main.url, None, name="main")]
        async with Daemon(tmp_path, members, daemon={"grpc": "127.0.0.1:0"}) as daemon:
            answer = await daemon.get(f"/_tvix/explain/{path.digits}")
            assert answer.status == 404
            assert b"?dry-run=1" in answer.body
            told = await document(daemon, path.digits, "?dry-run=1")
            assert (told["lookup"], told["nar"]) == (None, None)
            assert told["dry_run"]["outcome"] == "present"
            assert told["dry_run"]["front"] == "dry-run"
            done = await explain(daemon, path.store_path)
            assert (done.code, "was not asked for lately" in done.err) == (0, True)
            assert "its narinfo is remembered for " in done.out
            as_json = await explain(daemon, path.store_path, "--dry-run", "--json")
            assert json.loads(as_json.out)["dry_run"]["outcome"] == "present"
            absent = await explain(daemon, ABSENT)
            assert absent.code == 3
            assert all(".nar" not in seen.path.removesuffix(".narinfo") for seen in main.log)
            wrong = await daemon.get("/_tvix/explain/nonsense")
            assert wrong.status == 400
            assert (await explain(daemon, "nonsense")).code == 2


async def test_without_a_daemon_a_composition_is_asked(tmp_path: Path) -> None:
    async with UpstreamServer() as empty:
        compose = tmp_path / "compose.toml"
        compose.write_text(
            f'[daemon]\nstate = "./state"\n'
            f'[[substituters]]\nurl = "{empty.url}"\nname = "empty"\nunsigned = true\n'
        )
        done = await tvix_store("explain", ABSENT, "--compose", str(compose), "--json")
        assert done.code == 3, done.err
        told = json.loads(done.out)["dry_run"]
        assert told["outcome"] == "absent"
        assert [note["text"].partition(" ")[0] for note in list(steps(told))[-1]["notes"]] == [
            "404"
        ]
        assert "there is no daemon" not in done.err


async def test_a_nar_that_is_rendered_from_another_daemon_tells_what_that_was_asked(
    tmp_path: Path, upstreams: Upstreams, app: str, client: NixClient
) -> None:
    async with UpstreamServer() as main:
        main.serve_directory(upstreams.of("xz", app))
        members = [substituter(main.url, upstreams.key, name="main")]
        async with office(tmp_path, members) as far, laptop(tmp_path, far) as near:
            await client.copy(near.url, app)
            base = app.removeprefix("/nix/store/")
            told = await document(near, base)
            asked = {step["node"] for step in steps(told["lookup"])}
            assert "office" in asked
            assert any(
                note["code"] == "grpc" for step in steps(told["lookup"]) for note in step["notes"]
            )
            assert told["nar"]["summary"].startswith("present: office had it")
            # The other one tells what it did for it.
            there = await document(far, base)
            assert there["lookup"]["front"] == "grpc"
            assert there["lookup"]["request"] == "v1.Proxy/Describe"
            assert there["nar"]["request"] == "v1.Proxy/OpenNar"
            assert there["nar"]["status"] == "OK"


@pytest.mark.parametrize("read", [True, False])
async def test_an_explanation_takes_the_right_to_read(tmp_path: Path, read: bool) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"secret {'read' if read else 'write'}\n")
    tokens.chmod(0o600)
    settings: dict[str, Any] = {"tokens_file": str(tokens), "anonymous_read": False}
    async with Daemon(tmp_path / "tvix", daemon=settings) as daemon:
        target = f"/_tvix/explain/{ABSENT}?dry-run=1"
        assert (await daemon.get(target)).status == 401
        answer = await daemon.get(target, Authorization="Bearer secret")
        assert answer.status == (200 if read else 403)


async def test_a_lookup_that_hangs_can_be_explained_meanwhile(tmp_path: Path) -> None:
    async with UpstreamServer() as slow:
        go = asyncio.Event()
        slow.otherwise(lambda _: Reply(status=404, before=go))
        members = [substituter(slow.url, None, name="slow", timeout="30s")]
        async with Daemon(tmp_path, members, daemon={"lookup_timeout": "60s"}) as daemon:
            asking = asyncio.create_task(daemon.get(f"/{ABSENT}.narinfo"))
            await slow.requested(f"/{ABSENT}.narinfo")
            told = (await document(daemon, ABSENT))["lookup"]
            assert told["outcome"] == "waiting"
            assert "for slow" in told["summary"]
            go.set()
            assert (await asking).status == 404
            told = (await document(daemon, ABSENT))["lookup"]
            assert (told["outcome"], told["status"]) == ("absent", 404)


async def test_a_class_that_was_not_asked_is_told_by_the_names_of_its_members(
    tmp_path: Path, upstreams: Upstreams
) -> None:
    path = make_path("first", upstreams.workshop.secret_key)
    async with UpstreamServer() as main:
        for target, body in files_of([path]).items():
            main.on(target, Reply(body=body))
        members = [substituter(main.url, upstreams.key, name="main", priority=10)]
        for name, priority in (("one", 20), ("two", 20), ("three", 30)):
            members.append(
                substituter("http://127.0.0.1:1", upstreams.key, name=name, priority=priority)
            )
        async with Daemon(tmp_path / "tvix", members) as daemon:
            assert (await daemon.get(path.narinfo_target)).status == 200
            told = await document(daemon, path.digits)
    texts = [note["text"] for step in steps(told["lookup"]) for note in step["notes"]]
    assert "not asked: one, two, three" in texts
