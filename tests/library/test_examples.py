"""What `examples/` has, run as it is written there."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

import tvixstore
from tests.cli.test_app import environment
from tests.compose.test_load import KEY
from tests.library.stores import LOCAL, content_of, put
from tests.pathinfo.samples import TRUSTED, Sample, store_path
from tests.support.caches import files_of, make_path
from tests.support.served import served
from tests.support.upstream_server import Reply, UpstreamServer
from tvixstore.compose import load_text
from tvixstore.errors import StoreError
from tvixstore.library import Store
from tvixstore.nar import render

EXAMPLES = Path(__file__).parents[2] / "examples"
LAPTOP = (EXAMPLES / "laptop-over-office" / "compose.toml").read_text()

Client: TypeAlias = TestClient[web.Request, web.Application]


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compose_file(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "compose.toml"
    path.write_text(LOCAL)
    return path


@asynccontextmanager
async def file_server(folder: Path) -> AsyncIterator[tuple[Sample, Client]]:
    """The program over a store that has a path, and a browser."""
    compose = compose_file(folder)
    async with tvixstore.open(compose) as store:
        sample = await put(store)
    application = example("serve_files").application(str(compose))
    async with TestClient(TestServer(application)) as client:
        yield sample, client


async def test_files_are_served_out_of_store_paths(tmp_path: Path) -> None:
    async with file_server(tmp_path / "store") as (sample, client):
        path = str(sample.info.store_path)
        async with client.get(f"{path}/bin/hello") as response:
            assert (response.status, await response.read()) == (200, b"#!/bin/sh\necho hello\n")
        async with client.get(f"{path}/bin/hi") as response:
            # Through the symlink.
            assert response.url.path == f"{path}/bin/hello"
            assert response.status == 200
        async with client.get(path) as response:
            assert await response.json() == ["bin", "escape", "share"]
        async with client.get(f"{path}/share/%FF") as response:
            assert await response.read() == b"not UTF-8"
        async with client.head(f"{path}/share/large") as response:
            assert response.content_length == 1_024_000


async def test_parts_of_files_are_served(tmp_path: Path) -> None:
    async with file_server(tmp_path / "store") as (sample, client):
        large = f"{sample.info.store_path}/share/large"
        whole = bytes(range(256)) * 4000
        for asked, expected in [
            ("bytes=0-9", whole[:10]),
            ("bytes=700000-", whole[700_000:]),
            ("bytes=-5", whole[-5:]),
        ]:
            async with client.get(large, headers={"Range": asked}) as response:
                assert (response.status, await response.read()) == (206, expected)
        async with client.get(large, headers={"Range": "bytes=2000000-"}) as response:
            assert response.status == 416


async def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    async with file_server(tmp_path / "store") as (sample, client):
        path = str(sample.info.store_path)
        for absent in [f"{path}/bin/absent", f"{path}/bin/hello/x", f"{path}x", "/nix/store/x"]:
            async with client.get(absent) as response:
                assert response.status == 404, absent


async def test_a_closure_is_copied_and_then_there_is_nothing_left_to_copy(tmp_path: Path) -> None:
    copy_closure = example("copy_closure").copy_closure
    async with (
        tvixstore.open(compose_file(tmp_path / "source")) as source,
        tvixstore.open(compose_file(tmp_path / "target")) as target,
    ):
        libc = await put(source, "libc", b"a file and no directory")
        shell = await put(source, "shell", {b"sh": bytes(3_000_000)}, libc)
        hello = await put(source, "hello", {b"hello": b"x", b"copy": {b"sh": b"x"}}, libc, shell)
        paths = [sample.info.store_path for sample in (libc, shell, hello)]
        assert await copy_closure(source, target, [paths[2]]) == paths
        for sample in (libc, shell, hello):
            assert await target.path_infos.get(sample.key) == sample.info
            nar = render(content_of(target), sample.info.node)
            assert await nar.read_all() == sample.nar
        assert await copy_closure(source, target, paths) == []
        with pytest.raises(StoreError, match="is not there"):
            await copy_closure(source, target, [store_path("absent")])


async def test_the_script_says_what_it_copied(tmp_path: Path) -> None:
    source, target = compose_file(tmp_path / "source"), compose_file(tmp_path / "target")
    async with tvixstore.open(source) as store:
        path = (await put(store)).info.store_path
    script = await asyncio.create_subprocess_exec(
        *(sys.executable, EXAMPLES / "copy_closure.py", source, target, str(path)),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    printed = await script.communicate()
    assert (script.returncode, *printed) == (0, f"{path}\n".encode(), b"")
    async with tvixstore.open(target) as store:
        assert await store.path_infos.get(path.hash) is not None


async def test_a_program_says_what_it_waits_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_path("slow", TRUSTED, size=1_000_000)
    absent = store_path("absent")
    async with UpstreamServer() as world:
        for target, body in files_of([path]).items():
            world.on(target, Reply(body=body))
        text = (
            f'[[substituters]]\nurl = "{world.url}"\nname = "world"\n'
            f'public_keys = ["{TRUSTED.public_key}"]\n'
        )
        async with tvixstore.loads(text, folder=tmp_path) as store:
            wanted = [path.narinfo.store_path, absent]
            assert await example("fetch_with_progress").fetch(store, wanted) == [absent]
            lines = capsys.readouterr().err.splitlines()
            assert await example("fetch_with_progress").fetch(store, wanted[:1]) == []
            assert capsys.readouterr().err == "", "what is there is not waited for"
    name = path.narinfo.store_path.base_name
    ours = [line.removeprefix(f"{name}: ") for line in lines if line.startswith(name)]
    phases = list(dict.fromkeys(line.partition(",")[0] for line in ours))
    assert phases == ["waiting", "connecting", "downloading", "ingesting", "done"]
    assert ours[-1].startswith("done, from world; 100 % at ")
    assert f"{path.digits}: asking, from world" in lines
    assert f"{absent.digits}: absent, from world" in lines


@asynccontextmanager
async def office(folder: Path) -> AsyncIterator[tuple[Store, str]]:
    """The office's store, and where its daemon answers."""
    config = load_text(LOCAL, "office.toml", folder)
    async with served(config) as (composition, address):
        content = composition.content
        yield Store(content.blobs, content.directories, composition.path_infos), address


def laptop(address: str, world: str) -> str:
    """The example, with addresses that there are, and a key that signed what there is."""
    text = LAPTOP.replace("office.example:8000", address)
    return text.replace("https://cache.nixos.org", world).replace(
        KEY_THERE, str(TRUSTED.public_key)
    )


KEY_THERE = KEY.replace("cache.example.org", "cache.nixos.org")


async def test_a_laptop_has_what_it_used_once_when_the_office_is_gone(tmp_path: Path) -> None:
    async with UpstreamServer() as world:
        async with office(tmp_path / "office") as (at_work, address):
            used, unused = await put(at_work), await put(at_work, "unused")
            text = laptop(address, world.url)
            async with tvixstore.loads(text, folder=tmp_path / "laptop") as store:
                assert await store.path_infos.get(used.key) == used.info
                nar = render(content_of(store), used.info.node)
                assert await nar.read_all() == used.nar
                assert await store.path_infos.get(bytes(20)) is None
                assert len(world.seen(f"/{'0' * 32}.narinfo")) == 1
        async with tvixstore.loads(text, folder=tmp_path / "laptop") as store:
            assert await store.path_infos.get(used.key) == used.info
            nar = render(content_of(store), used.info.node)
            assert await nar.read_all() == used.nar
            with pytest.raises(StoreError):
                await store.path_infos.get(unused.key)
