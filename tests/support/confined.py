"""The system calls that a unit allows, enforced on a daemon without systemd as its parent.

`program` is Python that confines the process that runs it, by libseccomp, as systemd would:
`SystemCallFilter=` as `systemd-analyze` knows its groups, `RestrictAddressFamilies=` and
`MemoryDenyWriteExecute=`.
"""

from __future__ import annotations

import functools
import subprocess

# As `PROGRAM` uses it: what it needs is looked up before anything is forbidden.
_PROGRAM = """
import ctypes, socket
seccomp = ctypes.CDLL("libseccomp.so.2")
seccomp.seccomp_init.restype = ctypes.c_void_p
ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # and EPERM
class Compare(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("operator", ctypes.c_int),
                ("one", ctypes.c_uint64), ("other", ctypes.c_uint64)]
NOT_EQUAL, MASKED = 1, 7
context = ctypes.c_void_p(seccomp.seccomp_init(REFUSE))
number = lambda name: seccomp.seccomp_syscall_resolve_name(name.encode())
def allow(name, *comparisons):
    # Names of other machines have no number here.
    if number(name) >= 0:
        table = (Compare * len(comparisons))(*comparisons)
        done = seccomp.seccomp_rule_add_array(
            context, ALLOW, number(name), len(comparisons), table)
        assert done == 0, (name, done)
for name in {allowed!r}:
    if name not in ("socket", "mmap", "mprotect"):
        allow(name)
for family in {families!r}:
    allow("socket", Compare(0, 4, int(getattr(socket, family)), 0))
# Whatever is executable is not writable, and nothing becomes executable later.
for protection in (0, 1, 2, 3, 4, 5):
    allow("mmap", Compare(2, 4, protection, 0))
for protection in (0, 1, 2, 3):
    allow("mprotect", Compare(2, 4, protection, 0))
assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0
assert seccomp.seccomp_load(context) == 0
"""


@functools.cache
def _group(name: str) -> frozenset[str]:
    """The calls in one of systemd's groups, those of the groups in it included."""
    done = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    )
    calls: set[str] = set()
    for line in done.stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            calls |= _group(word)
        elif word and not word.startswith("#"):
            calls.add(word)
    return frozenset(calls)


def allowed_calls(filters: list[str]) -> set[str]:
    """What `SystemCallFilter=` lines leave: the first allows, those with a ~ take away."""
    calls: set[str] = set()
    for line in filters:
        named = {call for word in line.removeprefix("~").split() for call in _group(word)}
        calls = calls - named if line.startswith("~") else calls | named
    return calls | _group("@default")


def program(filters: list[str], families: list[str]) -> str:
    return _PROGRAM.format(allowed=sorted(allowed_calls(filters)), families=families)
