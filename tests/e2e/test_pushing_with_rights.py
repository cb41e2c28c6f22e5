"""The real client pushes to a daemon that asks for a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.test_access import with_netrc
from tests.support.daemon import Daemon, Section

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Upstreams


async def test_a_token_for_writing_pushes_and_others_are_told(
    tmp_path: Path, upstreams: Upstreams, app: str
) -> None:
    (tmp_path / "tokens").write_text("s3cret-reader read\ns3cret-pusher read,write\n")
    settings: Section = {"tokens_file": "tokens", "anonymous_read": False}
    source = upstreams.workshop.folder / "root"
    async with Daemon(tmp_path, daemon=settings) as daemon:
        for number, (password, told) in enumerate(
            (
                ("s3cret-reader", "lacks the right `write`"),
                ("s3cret-nobody", "credentials are not known here"),
                ("s3cret-pusher", ""),
            )
        ):
            client = with_netrc(tmp_path / f"client-{number}", upstreams, password)
            client.store = source
            finished = await client._run("nix", "copy", "--to", daemon.url, app, check=False)
            assert told in finished.output, finished.output
            assert (finished.code == 0) == (told == ""), finished.output
        client = with_netrc(tmp_path / "reader", upstreams, "s3cret-reader")
        await client._run("nix", "copy", "--no-check-sigs", "--from", daemon.url, app)
        assert "s3cret" not in daemon.text()
    await client.verify()
