"""Sockets that are passed on: which door gets which, what is refused, what is left alone."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tvixstore.cli.activation import inherited_sockets
from tvixstore.compose import Daemon
from tvixstore.compose.values import Address
from tvixstore.errors import ConfigError

# Descriptors that nothing else in this process has.
FIRST = 500
DAEMON = Daemon(
    http=Address("tcp", "127.0.0.1", 9000),
    grpc=Address("tcp", "127.0.0.1", 8000),
    state=Path("state"),
)
WITHOUT_HTTP = DAEMON.model_copy(update={"http": Address("off")})


class Passed:
    """Sockets at `FIRST` and after, as a parent passes them on."""

    def __init__(self) -> None:
        self.names: list[tuple[str, int] | str] = []
        self._stack = ExitStack()

    def add(self, made: socket.socket) -> None:
        with made:
            self.names.append(made.getsockname())
            self.add_descriptor(made.fileno())

    def add_descriptor(self, descriptor: int) -> None:
        wanted = FIRST + len(self.names) - 1
        assert fcntl.fcntl(descriptor, fcntl.F_DUPFD, wanted) == wanted

    def environment(self, names: str | None = None, **others: str) -> dict[str, str]:
        told = {"LISTEN_FDS": str(len(self.names)), "LISTEN_PID": str(os.getpid())}
        return told | ({} if names is None else {"LISTEN_FDNAMES": names}) | others

    def close(self) -> None:
        for descriptor in range(FIRST, FIRST + len(self.names)):
            try:
                os.close(descriptor)
            except OSError:
                continue


@pytest.fixture
def passed() -> Iterator[Passed]:
    made = Passed()
    yield made
    made.close()


def tcp(host: str = "127.0.0.1") -> socket.socket:
    return socket.create_server((host, 0))


def placed(daemon: Daemon, environ: dict[str, str]) -> tuple[list[object], list[object], Daemon]:
    """The names of the sockets that each door gets, and the daemon as it is reached."""
    with inherited_sockets(daemon, environ, FIRST) as inherited:
        http, grpc = (
            [each.getsockname() for each in sockets] for sockets in (inherited.http, inherited.grpc)
        )
        return http, grpc, inherited.placed(daemon)


def test_a_daemon_that_nobody_passes_sockets_to_binds_its_own() -> None:
    assert placed(DAEMON, {}) == ([], [], DAEMON)


def test_each_door_gets_the_sockets_of_its_name(passed: Passed) -> None:
    for _ in range(3):
        passed.add(tcp())
    one, two, three = passed.names
    http, grpc, _ = placed(DAEMON, passed.environment("http:grpc:http"))
    assert (http, grpc) == ([one, three], [two])


def test_sockets_without_names_go_to_the_doors_in_their_order(passed: Passed) -> None:
    passed.add(tcp())
    passed.add(tcp())
    # A socket unit's own name stands where it says none.
    http, grpc, _ = placed(DAEMON, passed.environment("tvixstore.socket:tvixstore.socket"))
    assert (http, grpc) == (passed.names[:1], passed.names[1:])


def test_a_socket_without_a_name_goes_to_the_only_door_there_is(passed: Passed) -> None:
    passed.add(tcp())
    http, grpc, _ = placed(WITHOUT_HTTP, passed.environment())
    assert (http, grpc) == ([], passed.names)


def test_what_was_passed_to_another_process_is_left_alone(passed: Passed) -> None:
    passed.add(tcp())
    environ = passed.environment(LISTEN_PID=str(os.getpid() + 1), OTHER="stays")
    assert placed(DAEMON, environ) == ([], [], DAEMON)
    assert environ == {"OTHER": "stays"}
    with socket.socket(fileno=os.dup(FIRST)) as still_open:
        assert still_open.getsockname() == passed.names[0]


def test_children_of_the_daemon_inherit_neither_sockets_nor_variables(passed: Passed) -> None:
    passed.add(tcp())
    environ = passed.environment("http")
    with inherited_sockets(DAEMON, environ, FIRST) as inherited:
        assert environ == {}
        assert not os.get_inheritable(inherited.http[0].fileno())


@pytest.mark.parametrize(("host", "is_local"), [("0.0.0.0", False), ("127.0.0.1", True)])
def test_whether_others_can_connect_is_seen_from_the_sockets(
    passed: Passed, host: str, is_local: bool
) -> None:
    passed.add(tcp())
    passed.add(tcp(host))
    _, _, daemon = placed(DAEMON, passed.environment("http:http"))
    assert DAEMON.takes_writes()
    assert daemon.is_local() == daemon.takes_writes() == is_local


def test_a_unix_socket_is_local_wherever_the_file_would_have_listened(
    passed: Passed, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{tmp_path}/s")
        made.listen()
        passed.add(made)
    open_to_all = DAEMON.model_copy(update={"http": Address("tcp", "0.0.0.0", 9000)})
    _, _, daemon = placed(open_to_all, passed.environment("http"))
    assert daemon.is_local() and str(daemon.http) == f"unix:{tmp_path}/s"


@pytest.mark.parametrize(
    ("daemon", "names", "others", "said"),
    [
        (DAEMON, "http", {}, "LISTEN_FDNAMES has 1 names for 2 sockets"),
        (DAEMON, "http:metrics", {}, "named 'metrics', neither http nor grpc"),
        (WITHOUT_HTTP, "http:grpc", {}, 'http = "off"'),
        (WITHOUT_HTTP, None, {}, "2 sockets were inherited for grpc"),
        (DAEMON, None, {"LISTEN_FDS": "-1"}, "LISTEN_FDS is '-1'"),
        (DAEMON, None, {"LISTEN_FDS": "\u0662"}, "not a number of sockets"),
    ],
)
def test_what_cannot_be_handed_out_is_refused(
    passed: Passed, daemon: Daemon, names: str | None, others: Mapping[str, str], said: str
) -> None:
    passed.add(tcp())
    passed.add(tcp())
    with pytest.raises(ConfigError, match=said):
        placed(daemon, passed.environment(names, **others))


def test_a_datagram_socket_is_refused(passed: Passed) -> None:
    passed.add(tcp())
    passed.add(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with pytest.raises(ConfigError, match=r"501 is no stream socket.*ListenStream="):
        placed(DAEMON, passed.environment("http:http"))


def test_a_connection_is_refused(passed: Passed) -> None:
    here, there = socket.socketpair()
    with here:
        passed.add(there)
        with pytest.raises(ConfigError, match=r"500 does not listen.*Accept=no"):
            placed(DAEMON, passed.environment("http"))


def test_a_file_is_refused(passed: Passed, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        passed.names.append("file")
        passed.add_descriptor(file.fileno())
        with pytest.raises(ConfigError, match="500 is not a socket"):
            placed(DAEMON, passed.environment("http"))
