"""What `tvix-store top` shows of a snapshot: a table that fits the terminal, or plain lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tvixstore.cli.progress import human
from tvixstore.errors import InvalidData

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

# Lines beside those of fills: two of the header, one below it, the table's head, one in reserve.
_AROUND: Final = 5
# From this width on hashes are shown, and how full each is.
_WIDE: Final = 110
_MOST_NAMES: Final = 5
_WIDEST_NAME: Final = 20
_HASH: Final = 32
_DIGEST: Final = 12
_MOST: Final = 1 << 63
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"))


@dataclass(frozen=True, slots=True)
class Fill:
    """A line of the table."""

    kind: str
    what: str
    source: str
    phase: str
    reason: str | None
    bytes: int
    total: int | None
    rate: float
    readers: int
    started: float

    @property
    def share(self) -> float | None:
        """How much of it is done, from 0 to 1."""
        return min(1.0, self.bytes / self.total) if self.total else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a daemon was doing at `time`."""

    time: float
    fills: tuple[Fill, ...]
    left_out: int
    running: int
    rate: float
    requests: Mapping[str, int]
    up: int
    down: tuple[str, ...]
    how_many_down: int


def read_snapshot(document: Mapping[str, Any]) -> Snapshot:
    """The snapshot in a daemon's document. Raises `InvalidData`.

    What is not there counts as nothing, and what is not known here is left out: the daemon may be
    older or newer.
    """
    try:
        totals = dict(document.get("totals", {}))
        return Snapshot(
            time=float(document["time"]),
            fills=tuple(_read_fill(each) for each in document["fills"]),
            left_out=_count(document.get("left_out", 0)),
            running=_count(totals.get("fills", 0)),
            rate=float(totals.get("rate", 0)),
            requests={_clean(k): _count(v) for k, v in dict(totals.get("requests", {})).items()},
            up=_count(totals.get("upstreams_up", 0)),
            down=tuple(_clean(name) for name in document.get("down", ())),
            how_many_down=_count(totals.get("upstreams_down", 0)),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InvalidData(f"is no snapshot of a daemon: {error!r}") from error


def _read_fill(told: Mapping[str, Any]) -> Fill:
    total, reason = told.get("total"), told.get("reason")
    return Fill(
        kind=_clean(told["kind"]),
        what=_clean(told["what"]),
        source=_clean(told.get("source", "")),
        phase=_clean(told["phase"]),
        reason=None if reason is None else _clean(reason),
        bytes=_count(told.get("bytes", 0)),
        total=None if total is None else _count(total),
        rate=float(told.get("rate", 0)),
        readers=_count(told.get("readers", 0)),
        started=float(told.get("started", 0)),
    )


def _count(value: Any) -> int:
    """A number that can be shown."""
    number = int(value)
    if not 0 <= number < _MOST:
        raise ValueError(f"{str(number)[:20]} is out of range")
    return number


def _clean(text: object) -> str:
    """Nothing in it moves a terminal's cursor."""
    return "".join(each if each.isprintable() else "?" for each in str(text))


def header(place: str, snapshot: Snapshot) -> list[str]:
    """Two lines: what it does, and with whom."""
    requests = ", ".join(f"{count} {door}" for door, count in snapshot.requests.items())
    names = list(snapshot.down[:_MOST_NAMES])
    if snapshot.how_many_down > len(names):
        names.append("…")
    down = f", {snapshot.how_many_down} down: {', '.join(names)}" if names else ""
    return [
        f"{place}  {_counted(snapshot.running, 'fill')}  {human(snapshot.rate)}/s",
        f"requests: {requests or 'none'}  upstreams: {snapshot.up} up{down}",
    ]


def lines(place: str, snapshot: Snapshot) -> list[str]:
    """All of it as plain text."""
    return [*header(place, snapshot), *(_line(fill, snapshot.time) for fill in snapshot.fills)] + (
        [f"and {snapshot.left_out} more"] if snapshot.left_out else []
    )


def _line(fill: Fill, now: float) -> str:
    parts = (
        fill.phase,
        fill.what,
        f"from {fill.source}" if fill.source else "",
        done(fill),
        f"{human(fill.rate)}/s",
        _counted(fill.readers, "reader"),
        f"for {age(now - fill.started)}",
        "" if fill.reason is None else f"({fill.reason})",
    )
    return "  ".join(part for part in parts if part)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def screen(
    place: str, snapshot: Snapshot | None, trouble: str | None, width: int, height: int
) -> RenderableType:
    """All that fits `width` columns and `height` lines."""
    from rich.console import Group
    from rich.text import Text

    said = [] if snapshot is None else header(place, snapshot)
    parts: list[RenderableType] = [
        Text(line, style="bold" if not number else "", no_wrap=True, overflow="ellipsis")
        for number, line in enumerate(said or [place])
    ]
    if trouble is not None:
        parts.append(Text(trouble, style="red", no_wrap=True, overflow="ellipsis"))
    if snapshot is None:
        return Group(*parts)
    room = max(1, height - _AROUND - (trouble is not None))
    parts.append(_table(snapshot, room, wide=width >= _WIDE))
    if (more := len(snapshot.fills) - room + snapshot.left_out) > 0:
        parts.append(Text(f"and {more} more", style="dim"))
    elif not snapshot.fills:
        parts.append(Text("nothing is being fetched", style="dim"))
    return Group(*parts)


def _table(snapshot: Snapshot, room: int, *, wide: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, expand=True, pad_edge=False, header_style="reverse")
    table.add_column("WHAT", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("FROM", no_wrap=True, overflow="ellipsis", max_width=_WIDEST_NAME)
    table.add_column("PHASE", no_wrap=True, min_width=11)
    table.add_column("DONE", no_wrap=True, justify="right", min_width=8)
    if wide:
        table.add_column("", no_wrap=True, width=20)
    table.add_column("RATE", no_wrap=True, justify="right", min_width=10)
    table.add_column("READ" if not wide else "READERS", no_wrap=True, justify="right")
    table.add_column("AGE", no_wrap=True, justify="right")
    for fill in snapshot.fills[:room]:
        cells = [
            shown(fill, wide=wide),
            fill.source,
            fill.phase,
            done(fill) if wide else _short(fill),
            *([bar(fill.share, 20)] if wide else []),
            f"{human(fill.rate)}/s" if fill.rate else "",
            str(fill.readers),
            age(snapshot.time - fill.started),
        ]
        table.add_row(*map(Text, cells), style=_STYLES.get(fill.phase, ""))
    return table


_STYLES: Final = {"waiting": "dim", "pausing": "yellow", "passing": "yellow"}


def shown(fill: Fill, *, wide: bool) -> str:
    """What it is, as short as it can be told from others."""
    name = fill.what.rpartition("/")[2]
    if wide:
        return name
    hashed, _, rest = name.partition("-")
    if rest and len(hashed) == _HASH:
        return rest
    return f"{fill.kind} {name[:_DIGEST]}" if fill.kind in ("blob", "closure") else name


def done(fill: Fill) -> str:
    """So much, of how much."""
    if fill.total is None:
        return human(fill.bytes) if fill.bytes else ""
    return f"{human(fill.bytes)} of {human(fill.total)}"


def _short(fill: Fill) -> str:
    share = fill.share
    if share is None:
        return human(fill.bytes) if fill.bytes else ""
    return f"{share:.0%}"


def bar(share: float | None, width: int) -> str:
    if share is None:
        return ""
    full = round(share * width)
    return "█" * full + "░" * (width - full)


def age(seconds: float) -> str:
    """A time in its largest unit."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"
