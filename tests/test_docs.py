"""The documentation says what the code does: keys and defaults, metrics, log events, examples."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tvixstore.compose import load_text, lower, show
from tvixstore.compose.model import Daemon, Section, Store, Substituter
from tvixstore.errors import ConfigError
from tvixstore.metrics import Metrics

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tvixstore"
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
COMPOSE_FILES = sorted([ROOT / "compose.toml", *ROOT.glob("examples/*/compose.toml")])

SECTIONS: dict[str, type[Section]] = {
    "[daemon]": Daemon,
    "[store]": Store,
    "[[substituters]]": Substituter,
}
# What is written of a key without a default of its own.
NO_DEFAULT = {"required", "none", "the host", "5, or 1 where `optional`"}

ROW = re.compile(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", re.M)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.M)


def text_of(page: str) -> str:
    return (DOCS / page).read_text("utf-8")


def section_of(text: str, heading: str) -> str:
    """What stands below `## heading`, up to the next heading of its level."""
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def keys_documented(section: str) -> dict[str, str]:
    """The keys of the table in configuration.md, each with what stands in its default column."""
    rows = ROW.findall(section_of(text_of("configuration.md"), section))
    return {key: default for key, _, default, _ in rows}


def means_the_default(model: type[Section], key: str, value: object) -> bool:
    """Whether a file without `key` is the same as one that says `key = value`."""
    given = {"url": "https://cache.example.org"} if "url" in model.model_fields else {}
    context = {"folder": ROOT}
    default = model.model_validate(given, context=context)
    said = model.model_validate({**given, key: value}, context=context)
    return bool(getattr(said, key) == getattr(default, key))


def block_after(text: str, mark: str) -> str:
    """The fenced block behind the comment `mark`."""
    found = re.search(re.escape(f"<!-- {mark} -->") + r"\n```\w+\n(.*?)```", text, re.S)
    assert found is not None, f"no block behind {mark}"
    return found[1]


def events_in(source: str) -> set[str]:
    """The log events that a module's source names: to a logger, to `Outage` and to `Seldom`."""
    events = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Attribute):
            logs = function.attr in ("debug", "info", "warning", "error")
            arguments = node.args[:1] if logs and _is_logger(function.value) else []
        else:
            arguments = node.args if ast.unparse(function) in ("Outage", "Seldom") else []
        events |= {
            argument.value
            for argument in arguments
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
        }
    return events


def _is_logger(value: ast.expr) -> bool:
    return ast.unparse(value).rpartition(".")[2].lstrip("_") == "log"


def anchors_of(page: Path) -> set[str]:
    """The fragments that a page's headings can be linked by, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(page.read_text("utf-8"))
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_documented_and_no_other(section: str) -> None:
    assert keys_documented(section).keys() == SECTIONS[section].model_fields.keys()


@pytest.mark.parametrize("section", SECTIONS)
def test_documented_defaults_are_the_models(section: str) -> None:
    model = SECTIONS[section]
    for key, written in keys_documented(section).items():
        field = model.model_fields[key]
        if written in NO_DEFAULT:
            assert (written == "required") == field.is_required(), key
            assert field.is_required() or not field.default, key
        else:
            value = tomllib.loads(f"value = {written.strip('`')}")["value"]
            assert means_the_default(model, key, value), key


@pytest.mark.parametrize("section", SECTIONS)
def test_keys_of_later_versions_are_documented(section: str) -> None:
    later = section_of(text_of("configuration.md"), "Keys that later versions bring")
    for key in SECTIONS[section].later:
        assert f"`{key}`" in later


def test_the_shipped_file_shows_every_key_with_its_default() -> None:
    text = (ROOT / "compose.toml").read_text("utf-8").partition("# The next one")[0]
    # A comment without a space is a line that could stand as it is.
    document = tomllib.loads(re.sub(r"^#(?! )", "", text, flags=re.M))
    (substituter,) = document["substituters"]
    tables = {
        "[daemon]": document["daemon"],
        "[store]": document["store"],
        "[[substituters]]": substituter,
    }
    for section, model in SECTIONS.items():
        assert tables[section].keys() == model.model_fields.keys()
        for key, value in tables[section].items():
            field = model.model_fields[key]
            has_default = not field.is_required() and field.default not in (None, "")
            # Its keys are there for use: they are no example of a default.
            if has_default and (section, key) != ("[[substituters]]", "public_keys"):
                assert means_the_default(model, key, value), key


def test_the_lowered_example_is_what_compose_show_prints() -> None:
    page = text_of("configuration.md")
    text = block_after(page, "lowered: example")
    config = load_text(text, "compose.toml", Path("/srv/tvixstore"), {})
    assert block_after(page, "lowered: output").rstrip("\n") == show(config.daemon, lower(config))


def test_the_mistakes_are_what_compose_check_says() -> None:
    page = text_of("configuration.md")
    with pytest.raises(ConfigError) as raised:
        load_text(block_after(page, "mistakes: file"), "compose.toml", Path("/srv/tvixstore"), {})
    said = "".join(f"tvix-store: {line}\n" for line in str(raised.value).splitlines())
    assert block_after(page, "mistakes: output") == said


def test_every_metric_is_documented_with_its_labels() -> None:
    table = section_of(text_of("operating.md"), "Metrics")
    for metric in Metrics().registry.collect():
        name = metric.name + ("_total" if metric.type == "counter" else "")
        row = re.search(rf"^\| `{name}` \| (.*?) \|", table, re.M)
        assert row is not None, name
    labels = re.findall(
        r'"(tvixstore_\w+)",\s*"[^"]*",\s*(\[[^\]]*\])', (PACKAGE / "metrics.py").read_text("utf-8")
    )
    assert labels
    for name, written in labels:
        row = re.search(rf"^\| `{name}(?:_total)?` \| (.*?) \|", table, re.M)
        assert row is not None and re.findall(r"`(\w+)`", row[1]) == ast.literal_eval(written), name


def test_no_metric_is_documented_that_does_not_exist() -> None:
    names = {metric.name for metric in Metrics().registry.collect()}
    # The page on embedding has names of Python packages that look like metrics.
    for page in (page for page in PAGES if page.name != "embedding.md"):
        for written in re.findall(r"\btvixstore_\w+", page.read_text("utf-8")):
            assert re.sub(r"_(total|bucket|count|sum)$", "", written) in names, f"{page}: {written}"


def test_every_log_event_is_documented_and_no_other() -> None:
    events: set[str] = set()
    for module in PACKAGE.rglob("*.py"):
        events |= events_in(module.read_text("utf-8"))
    section = section_of(text_of("operating.md"), "Log events")
    rows = re.findall(r"^\| (`[^|]*`) \| (?:debug|info|warning|error) \|", section, re.M)
    documented = {event for row in rows for event in re.findall(r"`([^`]+)`", row)}
    assert documented == events


def test_events_are_found_however_a_module_calls_its_logger() -> None:
    source = """
log.info("a.b", key=1)
self._log.error("c.d", exc_info=error)
_log.warning(event)
Outage(log, "e.f", "g.h")
parser.error("no event")
"""
    assert events_in(source) == {"a.b", "c.d", "e.f", "g.h"}


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_shipped_compose_files_pass_compose_check(path: Path) -> None:
    variables = set(re.findall(r"(?<!\$)\$\{(\w+)\}", path.read_text("utf-8"))) - {"HOME", "NAME"}
    environ = os.environ | dict.fromkeys(variables, "secret") | {"HOME": "/home/user"}
    command = [sys.executable, "-m", "tvixstore.cli", "compose", "check", str(path)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"{path}: ok\n"), done.stderr
    # Secrets are the reader's to bring; anything else that is warned of should not be shipped.
    warnings = done.stderr.splitlines()
    assert [line for line in warnings if "is not a file on this machine" not in line] == []


def test_compose_files_in_the_readme_pass_compose_check() -> None:
    blocks = re.findall(r"(?:^    .*\n|^\n)+", (ROOT / "README.md").read_text("utf-8"), re.M)
    files = [block for block in blocks if "[[substituters]]" in block]
    assert files
    for block in files:
        text = "\n".join(line[4:] for line in block.splitlines())
        load_text(text, "README.md", ROOT, {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors_of(linked), f"{page.name} links to {target}"
