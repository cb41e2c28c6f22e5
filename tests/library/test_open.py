"""Compositions in another program: opened from a file, a mapping or text, and closed well."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tvixstore
from tests.cli.test_app import environment
from tests.library.stores import LOCAL, MEMORY, content_of, put
from tvixstore.errors import ConfigError
from tvixstore.nar import render


async def check_a_path_goes_in_and_comes_out(store: tvixstore.Store) -> None:
    sample = await put(store)
    assert await store.path_infos.get(sample.key) == sample.info
    assert await render(content_of(store), sample.info.node).read_all() == sample.nar


async def test_a_file_is_opened_with_its_state_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "compose.toml"
    path.write_text(LOCAL)
    for source in (path, str(path)):
        async with tvixstore.open(source) as store:
            await check_a_path_goes_in_and_comes_out(store)
    assert (tmp_path / "state" / "index").is_dir()


async def test_what_was_put_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    async with tvixstore.loads(LOCAL, folder=tmp_path) as store:
        sample = await put(store)
    async with tvixstore.loads(LOCAL, folder=tmp_path) as store:
        assert await store.path_infos.get(sample.key) == sample.info


async def test_a_mapping_is_what_a_file_would_be_parsed_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with tvixstore.open(tomllib.loads(MEMORY)) as store:
        await check_a_path_goes_in_and_comes_out(store)
    assert os.listdir() == [], "nothing here needs a state"


async def test_a_short_form_keeps_its_state_where_it_says(tmp_path: Path) -> None:
    async with tvixstore.loads("", folder=tmp_path) as store:
        await check_a_path_goes_in_and_comes_out(store)
    assert (tmp_path / "state" / "format").is_file()


async def test_two_in_memory_have_nothing_in_common() -> None:
    async with tvixstore.loads(MEMORY) as first, tvixstore.loads(MEMORY) as second:
        sample = await put(first)
        assert await second.path_infos.get(sample.key) is None


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (MEMORY + "x = 5\n", "the text: [pathinfoservices.root]: x: unknown key"),
        ("[deamon]\n", 'the text: deamon: unknown section; did you mean "daemon"'),
    ],
)
async def test_mistakes_are_told_when_it_is_entered(text: str, mistake: str) -> None:
    opening = tvixstore.loads(text)
    with pytest.raises(ConfigError) as caught:
        await opening.__aenter__()
    assert str(caught.value).startswith(mistake)


async def test_an_error_inside_closes_it_and_goes_on(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            async with tvixstore.loads(LOCAL, folder=tmp_path):
                raise ZeroDivisionError


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_importing_it_costs_nothing() -> None:
    heavy = {"asyncio", "aiohttp", "grpclib", "lmdb", "obstore", "pydantic", "prometheus_client"}
    script = f"import sys, tvixstore; print({heavy} & sys.modules.keys())"
    assert run(script) == "set()\n"


def test_it_has_nothing_that_is_not_its_own() -> None:
    assert run("import tvixstore; print(tvixstore.Store.__module__)") == "tvixstore.library\n"
    script = "import tvixstore; print(tvixstore.Progress.__module__)"
    assert run(script) == "tvixstore.activity.progress\n"
    with pytest.raises(AttributeError, match="no attribute 'shop'"):
        getattr(tvixstore, "shop")  # noqa: B009 (mypy would be right to object)
