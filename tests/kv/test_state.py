"""The state directory: one user at a time, one version, and a clear line for everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.parts import missing
from tvixstore.errors import ConfigError
from tvixstore.kv import StateDirectory

HOLD = """
import sys
from pathlib import Path
from tvixstore.kv import StateDirectory
with StateDirectory(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def complaint(path: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        StateDirectory(path)
    text = str(raised.value)
    assert "\n" not in text and str(path) in text
    return text


def test_a_state_directory_is_made_with_its_parents_and_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "var" / "lib" / "state"
    for _ in range(2):
        with StateDirectory(path) as state:
            assert state.index.is_dir() and state.chunks.is_dir() and state.spool.is_dir()
            assert (path / "format").read_text() == "tvixstore state, version 2\n"
            assert (path / "lock").read_text().strip() == str(os.getpid())


def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        text = complaint(tmp_path)
        assert f"in use by process {holder.pid}" in text
        assert str(tmp_path / "lock") in text
        holder.kill()
    # Whatever ended that process, it let go.
    StateDirectory(tmp_path).close()


def test_a_second_opening_in_one_process_is_refused_too(tmp_path: Path) -> None:
    with StateDirectory(tmp_path):
        assert f"process {os.getpid()}" in complaint(tmp_path)
    StateDirectory(tmp_path).close()


@pytest.mark.parametrize("text", ["tvixstore state, version 3\n", "", "garbage\n\nmore", "\0" * 99])
def test_another_version_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    StateDirectory(tmp_path).close()
    (tmp_path / "format").write_text(text)
    (tmp_path / "spool" / "left").write_text("of the other version")
    assert "another version" in complaint(tmp_path)
    assert (tmp_path / "format").read_text() == text
    assert (tmp_path / "spool" / "left").exists()


def test_a_directory_that_lost_its_format_is_refused(tmp_path: Path) -> None:
    StateDirectory(tmp_path).close()
    (tmp_path / "format").unlink()
    assert "no format file" in complaint(tmp_path)


def test_a_start_that_was_killed_before_the_format_was_written_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "format.new").write_text("tvix")
    StateDirectory(tmp_path).close()
    assert (tmp_path / "format").read_text() == "tvixstore state, version 2\n"


def test_the_spool_is_emptied_of_files_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    StateDirectory(tmp_path).close()
    spool = tmp_path / "spool"
    precious = tmp_path / "precious"
    precious.write_text("not in the spool")
    (spool / "left").write_text("over")
    (spool / "link").symlink_to(precious)
    (spool / "folder").mkdir()
    (spool / "folder" / "file").touch()
    StateDirectory(tmp_path).close()
    assert sorted(path.name for path in spool.iterdir()) == ["folder", "link"]
    assert precious.exists() and (spool / "folder" / "file").exists()
    assert [record.message for record in caplog.records] == ["spool.foreign_entry"] * 2


def test_a_file_in_the_way_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("a file")
    assert "name a directory" in complaint(path)
    assert "name a directory" in complaint(path / "below")


def test_a_directory_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "state"
    StateDirectory(path).close()
    if os.geteuid() != 0:
        (path / "index").chmod(0o500)
        assert "Permission denied" in complaint(path)
        return
    # Permissions mean nothing to root, a read-only mount does.
    mounted = subprocess.run(
        ["mount", "--bind", path, path], capture_output=True, check=False
    ).returncode
    if mounted != 0:
        missing("cannot mount here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        assert "Read-only file system" in complaint(path)
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_state_that_is_taken_away_is_noticed(tmp_path: Path) -> None:
    with StateDirectory(tmp_path / "state") as state:
        assert state.trouble() is None
        state.spool.rename(tmp_path / "elsewhere")
        assert "spool is gone" in str(state.trouble())
