"""The leak check catches what is planted for it, one of each kind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PLANTED = """
import asyncio, socket, threading
import pytest

kept = []
stop = threading.Event()

async def numbers():
    yield b"1"
    yield b"2"

async def test_clean():
    assert [number async for number in numbers()] == [b"1", b"2"]

async def test_task():
    kept.append(asyncio.create_task(asyncio.sleep(3600)))

async def test_generator_suspended():
    kept.append(numbers())
    await kept[-1].__anext__()

async def test_generator_dropped():
    await numbers().__anext__()

async def test_exception():
    async def fail():
        raise ValueError
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    del task

async def test_coroutine():
    asyncio.sleep(0)

def test_thread():
    threading.Thread(target=stop.wait, daemon=True).start()

def test_file():
    kept.append(open(__file__))

def test_socket():
    kept.append(socket.create_server(("127.0.0.1", 0)))

async def test_connection():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    kept.append(socket.create_connection(server.sockets[0].getsockname()))
    server.close()
    await server.wait_closed()

@pytest.fixture
async def cleaned_up():
    task = asyncio.create_task(asyncio.sleep(3600))
    yield
    task.cancel()
    await asyncio.wait([task])

async def test_clean_after_its_fixtures(cleaned_up):
    pass

@pytest.mark.may_leave("files")
def test_clean_by_its_mark():
    kept.append(open(__file__))
"""


def test_each_planted_leak_is_caught_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_planted.py").write_text(PLANTED)
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "test_planted.py", "-rA", "--tb=line"),
            *("-p", "no:cacheprovider", "--rootdir", ".", "-c", root / "pyproject.toml"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    wrong = set(re.findall(r"^(?:ERROR|FAILED) .*test_planted.py::(\w+)", ran.stdout, re.M))
    planted = set(re.findall(r"def (test_\w+)", PLANTED))
    assert wrong == {name for name in planted if "clean" not in name}, ran.stdout
