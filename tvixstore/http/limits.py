"""How many clients, and how slow ones, the HTTP front door bears."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvixstore.listen import half_of_files


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may ask of us together, and how slow each may be, in seconds."""

    # Beyond these the answer is 503. A request takes its share of memory only while it streams.
    connections: int = field(default_factory=half_of_files)
    requests: int = 2000
    # For the first byte on a new connection, and from there to the end of a request's head.
    first_byte: float = 30.0
    head: float = 30.0
    # Between two requests. Longer than Nix keeps its connections (118 s), so that it is the client
    # who closes.
    idle: float = 130.0
    # For the first byte of a body that was asked for. Nix 2.8 that tries an upload again announces
    # the body and has none left to send: there is no use in being patient, five times over.
    body_begin: float = 15.0
    # Without a byte of a body that is being read.
    body_stall: float = 60.0
    # Without a byte taken of a response. Nix takes none while it waits for a lock, a disk or its
    # user, which can be minutes.
    reader_stall: float = 600.0
