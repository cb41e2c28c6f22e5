"""A composition of which the file changes: what stays the very same, what goes, and when."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.compose.test_long import MEMORY, long
from tests.support.caches import MadePath, make_path
from tests.support.upstream_server import Reply, UpstreamServer
from tvixstore.castore import Digest
from tvixstore.compose import Config, load_text
from tvixstore.compose.composition import Composition
from tvixstore.compose.generation import Changes
from tvixstore.compose.parts import Part, node_key
from tvixstore.errors import ConfigError, Unavailable
from tvixstore.nix import SecretKey
from tvixstore.policy.breaker import Breaker

KEY = SecretKey.generate("cache-1")
PATIENCE = 30.0


def text_of(urls: dict[str, str], daemon: str = "", **lines: str) -> str:
    """The short form, with substituters by name, and `lines` of each that are more."""
    sections = [f"[daemon]\n{daemon}\n"]
    for name, url in urls.items():
        sections.append(
            f'[[substituters]]\nname = "{name}"\nurl = "{url}"\n'
            f'public_keys = ["{KEY.public_key}"]\nretries = 0\n{lines.get(name, "")}\n'
        )
    return "\n".join(sections)


def config_of(folder: Path, text: str) -> Config:
    return load_text(text, "compose.toml", folder, {})


def part(composition: Composition, name: str, kind: str = "path_infos") -> Part:
    (found,) = [
        each
        for each in composition._generation.parts
        if each.key == node_key(kind, name)  # type: ignore[arg-type]
    ]
    return found


def breaker(composition: Composition, name: str) -> Breaker:
    found = part(composition, f"{name}/breaker").service.inner.breaker
    assert isinstance(found, Breaker)
    return found


async def drained(composition: Composition) -> None:
    async with asyncio.timeout(PATIENCE):
        await composition.drained()


def serve(server: UpstreamServer, *paths: MadePath) -> None:
    server.on("/nix-cache-info", Reply(body=b"StoreDir: /nix/store\n"))
    for path in paths:
        for target, body in path.files().items():
            server.on(target, Reply(body=body))


LEAVES = ("", "/timeout", "/retry", "/breaker")


@pytest.mark.parametrize(
    ("change", "kept", "changed"),
    [
        ({"c": "http://c.invalid"}, {"a", "b"}, set()),
        ({"b": None}, {"a"}, set()),
        ({"b": "http://elsewhere.invalid"}, {"a"}, {"b"}),
        ({"+b": "timeout = '3s'"}, {"a"}, {"b"}),
        ({"+b": "priority = 50"}, {"a", "b"}, set()),
        ({"+daemon": "lookup_timeout = '3s'"}, {"a", "b"}, set()),
        ({"+daemon": "negative_ttl = '3s'"}, set(), {"a", "b"}),
        ({"+daemon": "priority = 3"}, {"a", "b"}, set()),
        ({"+daemon": f'public_keys = ["{KEY.public_key}"]'}, set(), {"a", "b"}),
    ],
)
async def test_what_is_not_touched_is_the_very_same(
    change: dict[str, str | None], kept: set[str], changed: set[str], tmp_path: Path
) -> None:
    urls: dict[str, str] = {"a": "http://a.invalid", "b": "http://b.invalid"}
    async with await Composition.open(config_of(tmp_path, text_of(urls))) as composition:
        before = {(name, leaf): part(composition, name + leaf) for name in urls for leaf in LEAVES}
        daemon = change.pop("+daemon", "") or ""
        lines = {key[1:]: value or "" for key, value in change.items() if key.startswith("+")}
        other = {**urls, **{key: value for key, value in change.items() if key[0] != "+"}}
        urls = {name: url for name, url in other.items() if url is not None}
        changes = await composition.reload(config_of(tmp_path, text_of(urls, daemon, **lines)))
        assert changes.any
        for name in kept:
            for leaf in LEAVES:
                assert part(composition, name + leaf) is before[name, leaf]
        for name in changed:
            assert part(composition, name) is not before[name, ""]
        assert {name for name in changes.kept if "/" not in name} >= kept
        assert {name for name in changes.changed if "/" not in name} >= changed
        await drained(composition)


async def test_a_file_that_says_the_same_changes_nothing(tmp_path: Path) -> None:
    text = text_of({"a": "http://a.invalid"})
    async with await Composition.open(config_of(tmp_path, text)) as composition:
        path_infos, extras = composition.path_infos, composition.extras
        changes = await composition.reload(config_of(tmp_path, text + "\n# a comment\n"))
        assert changes == Changes(kept=changes.kept, any=False)
        assert composition.path_infos is path_infos
        assert composition.extras is extras
        assert composition.draining == 0


async def test_an_open_breaker_stays_open_and_connections_are_kept(tmp_path: Path) -> None:
    path, other = make_path("there", KEY), make_path("also-there", KEY)
    async with UpstreamServer() as good, UpstreamServer() as bad, UpstreamServer() as late:
        serve(good, path, other)
        bad.otherwise(lambda _: Reply(status=500))
        urls = {"good": good.url, "bad": bad.url}
        lines = {"bad": "breaker_failures = 1"}
        config = config_of(tmp_path, text_of(urls, **lines))
        async with await Composition.open(config) as composition:
            assert await composition.path_infos.describe(path.narinfo.store_path.hash)
            await bad.requested(path.narinfo_target)
            async with asyncio.timeout(PATIENCE):
                while not breaker(composition, "bad").is_open:
                    with pytest.raises(Unavailable):
                        await composition.path_infos.describe(bytes(20))
            asked = len(bad.log)
            accepted = good.accepted
            urls["late"] = late.url
            # With other TTLs the leaves are others, and still nobody forgets.
            for daemon in ("", "narinfo_ttl = '2m'"):
                config = config_of(tmp_path, text_of(urls, daemon, **lines))
                await composition.reload(config)
                assert breaker(composition, "bad").is_open
            assert await composition.path_infos.describe(other.narinfo.store_path.hash)
            assert len(bad.log) == asked
            assert good.accepted == accepted
            states = {each.name: each.up for each in composition.upstream_statuses()}
            assert states == {"good": True, "bad": False, "late": True}
            await drained(composition)


async def test_a_removed_one_keeps_its_connections_until_its_last_reader_has_left(
    tmp_path: Path,
) -> None:
    path = make_path("long", KEY, size=300_000)
    go_on = asyncio.Event()
    async with UpstreamServer() as upstream:
        serve(upstream, path)
        upstream.on(path.nar_target, Reply(body=path.nar, pause=go_on, after=200_000))
        text = text_of({"a": upstream.url}, "verify_ahead = 1024")
        async with await Composition.open(config_of(tmp_path, text)) as composition:
            uses = composition.uses
            uses.begin()
            description = await composition.path_infos.describe(path.narinfo.store_path.hash)
            assert description is not None
            stream = await composition.path_infos.open_nar(description)
            assert stream is not None
            pieces = [await anext(stream)]
            await composition.reload(config_of(tmp_path, text_of({})))
            assert composition.upstream_statuses() == []
            assert composition.draining == 1
            go_on.set()
            async with stream:
                pieces += [piece async for piece in stream]
            assert b"".join(pieces) == path.nar
            assert upstream.connections
            uses.end()
            await drained(composition)
            await upstream.abandoned()
            # It was ingested where it is found now, too.
            kept = await composition.path_infos.get(path.narinfo.store_path.hash)
            assert kept is not None


async def test_what_is_wanted_again_while_it_drains_is_taken_back(tmp_path: Path) -> None:
    path = make_path("there", KEY)
    async with UpstreamServer() as upstream:
        serve(upstream, path)
        with_it, without = text_of({"a": upstream.url}), text_of({})
        composition = await Composition.open(config_of(tmp_path, with_it))
        leaf, uses = part(composition, "a"), composition.uses
        uses.begin()
        await composition.reload(config_of(tmp_path, without))
        changes = await composition.reload(config_of(tmp_path, with_it))
        assert part(composition, "a") is leaf
        assert "a" in changes.added
        uses.end()
        await drained(composition)
        assert await composition.path_infos.describe(path.narinfo.store_path.hash)
        await composition.aclose()


async def test_what_is_remembered_as_absent_stays_so_where_nothing_below_changed(
    tmp_path: Path,
) -> None:
    def text(member: str) -> str:
        blobs = f"""
[blobservices.root]
type = "fallback"
members = ["remembers", "{member}"]
[blobservices.remembers]
type = "negative"
inner = "store"
[blobservices.store]
type = "memory"
[blobservices.one]
type = "memory"
[blobservices.two]
type = "memory"
"""
        return long(blobservices=blobs)

    async with await Composition.open(config_of(tmp_path, text("one"))) as composition:
        digest = Digest.of(b"x")
        assert not await composition.content.blobs.has(digest)
        store = part(composition, "store", "blobs").service
        remembers = part(composition, "remembers", "blobs").service
        assert digest in remembers.absences
        changes = await composition.reload(config_of(tmp_path, text("two")))
        assert part(composition, "remembers", "blobs").service is remembers
        assert digest in remembers.absences
        assert (changes.added, changes.removed) == (("two (blobs)",), ("one (blobs)",))
        # It is told of what comes, as before.
        await store.put(b"x")
        assert await composition.content.blobs.has(digest)
        await drained(composition)


async def test_limits_of_the_store_count_from_now_on(tmp_path: Path) -> None:
    async with await Composition.open(config_of(tmp_path, "[daemon]\n")) as composition:
        store = composition._own
        assert store is not None and store.guard.admits_now(1 << 20)
        config = config_of(tmp_path, '[daemon]\n[store]\nmax_size = "1KiB"\nmin_free = 0\n')
        changes = await composition.reload(config)
        assert changes.any and not changes.changed and not changes.needs_restart
        assert not store.guard.fits(1 << 20)
        changes = await composition.reload(
            config_of(tmp_path, '[daemon]\n[store]\nchunk_size = "64KiB"\ndurability = "process"\n')
        )
        assert store.guard.admits_now(1 << 20)
        assert changes.needs_restart == (f"durability of {tmp_path / 'state'}",)
        local = part(composition, "root", "blobs").over[0].service
        assert local._chunking.average == 64 << 10
        await drained(composition)


@pytest.mark.parametrize(
    "broken",
    [
        '[daemon]\nsign_with = "no-such.secret"\n',
        text_of({"a": "grpc+http://127.0.0.1:1?wait-connect=1"}),
        MEMORY["directoryservices"]
        + MEMORY["pathinfoservices"]
        + '[blobservices.root]\ntype = "local"\npath = "taken"\n',
    ],
    ids=["a missing key file", "a peer that is not there", "a state in use"],
)
async def test_what_cannot_be_used_changes_nothing_and_leaves_nothing(
    broken: str, tmp_path: Path
) -> None:
    taken = '[daemon]\nstate = "taken"\n'
    text = text_of({"a": "http://a.invalid"})
    async with (
        await Composition.open(config_of(tmp_path, taken)),
        await Composition.open(config_of(tmp_path, text)) as composition,
    ):
        path_infos, places = composition.path_infos, composition._stores.places()
        parts = set(composition._generations.parts)
        with pytest.raises((ConfigError, Unavailable)):
            await composition.reload(config_of(tmp_path, broken))
        assert composition.path_infos is path_infos
        assert composition._generations.parts == parts
        assert composition._stores.places() == places
        assert [each.name for each in composition.upstream_statuses()] == ["a"]


async def test_a_store_is_closed_with_the_last_that_used_it(tmp_path: Path) -> None:
    def text(folder: str) -> str:
        blobs = f'[blobservices.root]\ntype = "local"\npath = "{folder}"\n'
        return long(blobservices=blobs)

    async with await Composition.open(config_of(tmp_path, text("one"))) as composition:
        uses, content = composition.uses, composition.content
        uses.begin()
        digest = await content.blobs.put(b"x")
        await composition.reload(config_of(tmp_path, text("two")))
        assert await content.blobs.read(digest) == b"x"
        assert await composition.content.blobs.read(digest) is None
        one, two, own = (tmp_path / name for name in ("one", "two", "state"))
        assert composition._stores.places() == {one, two, own}
        uses.end()
        await drained(composition)
        assert composition._stores.places() == {two, own}
        # It can be had by somebody else, and again by us.
        await composition.reload(config_of(tmp_path, text("one")))
        assert await composition.content.blobs.read(digest) == b"x"
        await drained(composition)


async def test_gauges_of_those_that_are_gone_are_gone(tmp_path: Path) -> None:
    def up(name: str) -> float | None:
        labels = {"node": name}
        return composition.metrics.registry.get_sample_value("tvixstore_upstream_up", labels)

    urls = {"a": "http://a.invalid", "b": "http://b.invalid"}
    async with await Composition.open(config_of(tmp_path, text_of(urls))) as composition:
        old = composition._generation.health
        assert (up("a"), up("b")) == (1, 1)
        uses = composition.uses
        uses.begin()
        await composition.reload(config_of(tmp_path, text_of({"a": "http://other.invalid"})))
        assert (up("a"), up("b")) == (1, None)
        # Those that drain have no say in it any more.
        for health in old.values():
            health.observe("unknown", Unavailable("down"))
        assert (up("a"), up("b")) == (1, None)
        uses.end()
        await drained(composition)
        assert up("a") == 1


async def test_eviction_stops_before_anything_is_kept_elsewhere_and_begins_after_it(
    tmp_path: Path,
) -> None:
    def text(folder: str) -> str:
        content = "".join(
            f'[{kind}.root]\ntype = "local"\npath = "content"\n'
            for kind in ("blobservices", "directoryservices")
        )
        return content + f'[pathinfoservices.root]\ntype = "local"\npath = "{folder}"\n'

    def evicts() -> bool:
        store = composition._stores._stores[tmp_path / "content"]
        return store.evicting is not None and not store.evicting.done()

    here, elsewhere = config_of(tmp_path, text("content")), config_of(tmp_path, text("infos"))
    async with await Composition.open(here) as composition:
        assert evicts()
        await composition.reload(elsewhere)
        assert not evicts()
        await drained(composition)
        assert not evicts()
        uses = composition.uses
        uses.begin()
        await composition.reload(here)
        # The old one may still put path infos elsewhere whose content is here.
        assert not evicts()
        uses.end()
        await drained(composition)
        assert evicts()


async def test_settings_that_changed_are_named(tmp_path: Path) -> None:
    before = text_of({"a": "http://127.0.0.1:1"}, "priority = 3")
    after = text_of({"a": "http://127.0.0.1:1"}, "priority = 4\naccess_log = true")
    limits = '[store]\nmax_size = "1GiB"\n'
    async with await Composition.open(config_of(tmp_path, before)) as composition:
        changes = await composition.reload(config_of(tmp_path, after + limits))
        assert changes.settings == ("access_log", "max_size", "priority")
        assert changes.any
        assert not changes.added + changes.removed + changes.changed
        await drained(composition)


async def test_files_under_the_same_names_are_read_again(tmp_path: Path) -> None:
    key = tmp_path / "ours.secret"
    key.write_text(KEY.text)
    config = config_of(tmp_path, text_of({}, f'sign_with = "{key}"'))
    async with await Composition.open(config) as composition:
        assert not (await composition.reload(config)).any
        other = SecretKey.generate("other-1")
        key.write_text(other.text + "\n")
        changes = await composition.reload(config)
        assert changes.changed == ("root/signed",)
        signing = part(composition, "root/signed").service.inner
        assert signing.signer.key == other
        await drained(composition)


async def test_which_keys_are_trusted_is_told_to_a_store_that_stays(tmp_path: Path) -> None:
    async with await Composition.open(config_of(tmp_path, text_of({}))) as composition:
        (store,) = [
            each.service
            for each in composition._generations.parts
            if each.key == ("path infos", tmp_path / "state")
        ]
        assert store.keys.names == []
        await composition.reload(config_of(tmp_path, text_of({"a": "http://a.invalid"})))
        assert store.keys.names == ["cache-1"]
        await drained(composition)
