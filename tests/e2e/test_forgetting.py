"""`tvix-store forget-absences`: what was just pushed elsewhere is found at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.caches import files_of, make_path
from tests.support.command import Done, tvix_store
from tests.support.composed import grpc_target
from tests.support.daemon import Daemon, substituter
from tests.support.upstream_server import Reply, Seen, UpstreamServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient


async def forget(daemon: Daemon, *arguments: str) -> Done:
    asking = daemon.folder / "asking"
    asking.mkdir(exist_ok=True)
    (asking / "compose.toml").write_text(f'[daemon]\ngrpc = "{grpc_target(daemon)}"\n')
    return await tvix_store("forget-absences", *arguments, cwd=asking)


async def test_what_is_pushed_upstream_is_served_as_soon_as_its_absence_is_forgotten(
    tmp_path: Path, upstreams: Upstreams, client: NixClient
) -> None:
    paths = [make_path(name, upstreams.workshop.secret_key) for name in ("one", "two", "three")]
    has = files_of([])
    async with UpstreamServer() as upstream:

        def answer(seen: Seen) -> Reply:
            body = has.get(seen.path)
            return Reply(status=404) if body is None else Reply(body=body)

        upstream.otherwise(answer)
        member = substituter(upstream.url, upstreams.key, name="main")
        settings = {"grpc": "127.0.0.1:0", "negative_ttl": "1h"}
        async with Daemon(tmp_path / "tvix", [member], daemon=settings) as daemon:

            async def statuses() -> list[int]:
                return [(await daemon.get(path.narinfo_target)).status for path in paths]

            assert await statuses() == [404] * 3
            log_target = f"/log/{paths[0].digits}-x.drv"
            assert (await daemon.get(log_target)).status == 404
            has |= files_of(paths) | {log_target: b"built"}
            assert await statuses() == [404] * 3

            one = await forget(daemon, paths[0].store_path)
            assert (one.code, one.err) == (0, "")
            assert one.out.startswith("forgot ")
            assert await statuses() == [200, 404, 404]
            # Also on disk.
            await daemon.stop()
            await daemon.start()
            assert await statuses() == [200, 404, 404]

            assert (await forget(daemon, paths[1].digits)).code == 0
            assert await statuses() == [200, 200, 404]
            everything = await forget(daemon)
            assert everything.code == 0
            assert await statuses() == [200] * 3
            assert (await daemon.get(log_target)).body == b"built"
            again = await forget(daemon)
            assert again.out == "forgot 0 absences\n"
            assert len(daemon.events("absences.forgotten")) == 4
            await client.copy(daemon.url, *(path.store_path for path in paths))


async def test_an_answer_that_was_under_way_is_not_remembered_afterwards(
    tmp_path: Path, upstreams: Upstreams
) -> None:
    path = make_path("late", upstreams.workshop.secret_key)
    held = asyncio.Event()
    async with UpstreamServer() as upstream:
        upstream.on("/nix-cache-info", Reply(body=files_of([])["/nix-cache-info"]))
        # It looked before the path came, and says so after that.
        upstream.on(path.narinfo_target, Reply(status=404, before=held), Reply(body=path.text))
        member = substituter(upstream.url, upstreams.key, name="main", timeout="30s")
        settings = {"grpc": "127.0.0.1:0", "negative_ttl": "1h", "lookup_timeout": "30s"}
        async with Daemon(tmp_path / "tvix", [member], daemon=settings) as daemon:
            early = asyncio.create_task(daemon.get(path.narinfo_target))
            await upstream.requested(path.narinfo_target)
            assert (await forget(daemon)).code == 0
            # It waits for no answer of before.
            assert (await daemon.get(path.narinfo_target)).status == 200
            held.set()
            assert (await early).status == 404
            assert (await daemon.get(path.narinfo_target)).status == 200


async def test_what_is_no_path_is_wrong_usage_and_no_daemon_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "compose.toml").write_text(f'[daemon]\ngrpc = "unix:{tmp_path}/none"\n')
    wrong = await tvix_store("forget-absences", "nonsense", cwd=tmp_path)
    assert wrong.code == 2
    nobody = await tvix_store("forget-absences", cwd=tmp_path)
    assert nobody.code == 4
