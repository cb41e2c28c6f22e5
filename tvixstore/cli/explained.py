"""How an explanation is shown: a sentence, and below it who was asked, in the order of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import typer

from tvixstore.explain.sentence import spell_size
from tvixstore.policy.tracing import spell

Document = dict[str, Any]

_TITLES: Final = {"dry_run": "a lookup now", "lookup": "the last lookup", "nar": "the last NAR"}
_STYLES: Final = {
    "present": "green",
    "done": "green",
    "passed": "green",
    "absent": "dim",
    "cancelled": "dim",
    "waiting": "yellow",
    "unknown": "red",
    "rejected": "bold red",
    "failed": "red",
}
_FAILED: Final = frozenset({"unknown", "rejected"})


@dataclass(frozen=True, slots=True)
class Row:
    """One step as it is shown; `lead` draws what it hangs on."""

    at: str
    took: str
    lead: str
    node: str
    outcome: str
    details: str


def show(document: Document, *, everything: bool, styled: bool) -> None:
    """Writes all of `document` to standard output, a terminal's colours in it if `styled`."""
    typer.echo(document["store_path"] or document["path_hash"])
    for key, title in _TITLES.items():
        if (request := document[key]) is None:
            continue
        typer.echo(f"\n{_heading(title, request)}\n  {request['summary']}\n")
        rows = [*_rows(request["steps"], everything=everything), *_sums(request["content"])]
        (_styled if styled else _plain)(rows)
        for note in request["notes"]:
            typer.echo(f"  {_note(note)}")
        if request["left_out"]:
            typer.echo(f"  {request['left_out']} more steps or notes were left out")


def _heading(title: str, request: Document) -> str:
    parts = [f"{title}, {request['at']}"]
    if request["front"] != "dry-run":
        status = "" if request["status"] is None else f" answered {request['status']}"
        parts.append(f"{request['front']} {request['request']}{status}")
    if request["bytes"]:
        parts.append(f"{spell_size(request['bytes'])} sent")
    return ", ".join(parts)


def _rows(
    steps: Sequence[Document], *, everything: bool, lead: str = "", top: bool = True
) -> Iterator[Row]:
    for number, step in enumerate(steps, 1):
        while not everything and _passed_on(step):
            step = _taken_together(step, step["steps"][0])
        last = number == len(steps)
        corner, below = ("", "") if top else (("└─ ", "   ") if last else ("├─ ", "│  "))
        yield _row(step, lead + corner)
        yield from _rows(step["steps"], everything=everything, lead=lead + below, top=False)


def _passed_on(step: Document) -> bool:
    """Whether it says nothing that what is below it does not say."""
    if step["notes"] or len(step["steps"]) != 1:
        return False
    (below,) = step["steps"]
    same = (below["outcome"], below["reason"]) == (step["outcome"], step["reason"])
    return same and below["call"] == step["call"]


def _taken_together(step: Document, below: Document) -> Document:
    """As one row: at the time at which the first of them was asked, which is the order in which
    they are told, and called by both if whoever chose among members knows it by another name."""
    outer, inner = str(step["node"]).split(" › ")[0], str(below["node"])
    same = outer.partition("/")[0] in ("root", inner.partition("/")[0])
    node = inner if same else f"{outer} › {inner}"
    return {**below, "node": node, "at": step["at"], "seconds": step["seconds"]}


def _row(step: Document, lead: str) -> Row:
    details = [] if step["call"] in ("describe", "download") else [step["call"]]
    if step["reason"] and not any(each["outcome"] in _FAILED for each in step["steps"]):
        details.append(step["reason"])
    # A status is told with the reason that it is, if it is one.
    details += [
        _note(each) for each in step["notes"] if not (step["reason"] and each["code"] == "http")
    ]
    if step["bytes"]:
        details.append(spell_size(step["bytes"]))
    return Row(
        spell(step["at"]),
        spell(step["seconds"]),
        lead,
        f"{step['node']} ({step['kind']})",
        step["outcome"],
        "; ".join(details),
    )


def _sums(content: Sequence[Document]) -> Iterator[Row]:
    for each in content:
        outcomes = ", ".join(f"{count} {name}" for name, count in each["outcomes"].items())
        details = f"{each['calls']} calls: {outcomes}"
        if each["bytes"]:
            details += f"; {spell_size(each['bytes'])}"
        node = f"{each['node']} ({each['service']}s)"
        yield Row("", spell(each["seconds"]), "", node, "", details)


def _note(note: Document) -> str:
    return str(note["text"] or note["code"])


def _plain(rows: Sequence[Row]) -> None:
    named = [f"{row.lead}{row.node}" for row in rows]
    wide = max(map(len, named), default=0)
    outcomes = max((len(row.outcome) for row in rows), default=0)
    for row, name in zip(rows, named, strict=True):
        line = f"  {row.at:>8} {row.took:>8}  {name:<{wide}}  {row.outcome:<{outcomes}}"
        typer.echo(f"{line}  {row.details}".rstrip())


def _styled(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("at", "took"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("node", no_wrap=True)
    table.add_column("answer", no_wrap=True)
    table.add_column("why", overflow="fold")
    for row in rows:
        name = Text(row.lead, style="dim").append(row.node, style="default")
        outcome = Text(row.outcome, style=_STYLES.get(row.outcome, ""))
        table.add_row(row.at, row.took, name, outcome, Text(row.details))
    Console().print(table)
