"""The daemon with no more system calls than its systemd unit allows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.confined import program
from tests.support.daemon import Daemon, substituter
from tests.support.upstream_server import UpstreamServer

if TYPE_CHECKING:
    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient

UNIT = Path(__file__).parent.parent.parent / "examples" / "systemd" / "tvixstore.service"
# Proves that anything is forbidden at all.
TRY_WHAT_IS_FORBIDDEN = """
import mmap, os
for forbidden in (
    lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC),
    lambda: os.chroot("/"),
    lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
):
    try:
        forbidden()
    except PermissionError:
        continue
    raise SystemExit("not forbidden")
"""


async def test_a_closure_comes_and_stays_with_what_the_unit_allows(
    tmp_path: Path, upstreams: Upstreams, app: str, client: NixClient, second_client: NixClient
) -> None:
    text = UNIT.read_text("utf-8")
    filters = re.findall(r"^SystemCallFilter=(.*)$", text, re.M)
    (families,) = re.findall(r"^RestrictAddressFamilies=(.*)$", text, re.M)
    assert "MemoryDenyWriteExecute=yes" in text.splitlines()
    planted = program(filters, families.split()) + TRY_WHAT_IS_FORBIDDEN
    async with UpstreamServer() as upstream:
        upstream.serve_directory(upstreams.of("xz", app))
        sections = [substituter(upstream.url.replace("127.0.0.1", "localhost"), upstreams.key)]
        daemon = Daemon(tmp_path / "d", sections, planted=planted, daemon={"grpc": "127.0.0.1:0"})
        async with daemon:
            await client.copy(daemon.url, app)
            await daemon.settled()
        async with daemon:
            await second_client.copy(daemon.url, app)
            assert "errno" not in daemon.text().lower()
    await second_client.verify()
