"""The long form: what becomes of it, and what it has in common with tvix's and snix's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.compose.test_load import KEY, load, mistakes_in
from tvixstore.compose import Config, lint, lower, show
from tvixstore.compose.graph import KINDS, Graph
from tvixstore.compose.nodes import (
    NODE_TYPES,
    CacheNode,
    GrpcNode,
    Kind,
    LocalNode,
    NixNode,
    ObjectStoreNode,
    RaceNode,
)

HERE = Path(__file__).parent
URLS: list[dict[str, Any]] = json.loads((HERE.parent / "data" / "service-urls.json").read_text())[
    "urls"
]
KIND_OF: dict[str, Kind] = {"blob": "blobs", "directory": "directories", "pathinfo": "path_infos"}
SECTION_OF = {
    "blob": "blobservices",
    "directory": "directoryservices",
    "pathinfo": "pathinfoservices",
}

MEMORY = {
    "blobservices": '[blobservices.root]\ntype = "memory"\n',
    "directoryservices": '[directoryservices.root]\ntype = "memory"\n',
    "pathinfoservices": '[pathinfoservices.root]\ntype = "memory"\n',
}


def long(**sections: str) -> str:
    """A composition with those sections, and memory for the others."""
    return "\n".join({**MEMORY, **sections}.values())


def graph_of(text: str) -> Graph:
    return lower(load(text))


def warnings(text: str) -> list[str]:
    return [str(warning).removesuffix(f" ({warning.rule})") for warning in lint(load(text))]


# The three examples of the guide that tvix and snix have of their compositions.

REMOTE_BLOBS = """
[blobservices.root]
type = "combined"
near = "near"
far = "far"

[blobservices.near]
type = "objectstore"
object_store_url = "file:///tmp/tvix/blobservice"
object_store_options = {}

[blobservices.far]
type = "grpc"
url = "grpc+http://[::1]:8000"
"""

LRU = """
[pathinfoservices.root]
type = "cache"
near = "near"
far = "far"

[pathinfoservices.near]
type = "lru"
capacity = 1000

[pathinfoservices.far]
type = "grpc"
url = "grpc+http://localhost:8000"
"""

FETCH_THROUGH = f"""
[blobservices.root]
type = "objectstore"
object_store_url = "file:///var/lib/tvix-store/blobs.object_store"
object_store_options = {{}}

[directoryservices.root]
type = "redb"
is_temporary = false
path = "/var/lib/tvix-store/directories.redb"

[pathinfoservices.root]
type = "cache"
near = "redb"
far = "cache-nixos-org"

[pathinfoservices.redb]
type = "redb"
is_temporary = false
path = "/var/lib/tvix-store/pathinfo.redb"

[pathinfoservices.cache-nixos-org]
type = "nix"
base_url = "https://cache.nixos.org"
public_keys = ["{KEY}"]
blob_service = "root"
directory_service = "root"
"""


def test_blobs_near_and_far_load_as_tvix_has_them() -> None:
    graph = graph_of(long(blobservices=REMOTE_BLOBS))
    root, near, far = (graph.blobs[name] for name in ("root", "near", "far"))
    assert isinstance(root, CacheNode) and (root.near, root.far) == ("near", "far")
    assert isinstance(near, ObjectStoreNode) and near.avg_chunk_size == 256 << 10
    assert isinstance(far, GrpcNode) and far.url == "grpc+http://[::1]:8000"


def test_older_files_say_local_and_remote() -> None:
    text = REMOTE_BLOBS.replace("near =", "local =").replace("far =", "remote =")
    assert graph_of(long(blobservices=text)) == graph_of(long(blobservices=REMOTE_BLOBS))


def test_an_lru_before_another_daemon_loads_as_tvix_has_it() -> None:
    assert set(graph_of(long(pathinfoservices=LRU)).path_infos) == {"root", "near", "far"}


def test_a_store_that_fetches_through_says_what_to_write_for_redb() -> None:
    assert mistakes_in(FETCH_THROUGH) == [
        f'[{section}]: type: "redb" is not ours: write type = "local" and path = "./state" instead'
        for section in ("directoryservices.root", "pathinfoservices.redb")
    ]
    ours = FETCH_THROUGH.replace('"redb"\nis_temporary = false', '"local"')
    node = graph_of(ours).path_infos["cache-nixos-org"]
    assert isinstance(node, NixNode)
    assert node.blob_service == "root"


def accepted(entry: dict[str, Any], service: str) -> bool:
    """Whether we take the URL: what is valid upstream, engines apart that we do not have."""
    scheme = entry["url"].partition("://")[0]
    if scheme in ("redb", "bigtable"):
        return False
    if scheme.startswith("objectstore"):
        return service == "blob" and scheme == "objectstore+file"
    return bool(entry["valid_upstream"])


@pytest.mark.parametrize(
    ("entry", "service"),
    [
        pytest.param(entry, service, id=f"{service} {entry['url']}")
        for entry in URLS
        for service in entry["services"]
    ],
)
def test_a_service_url_stands_where_a_name_may(entry: dict[str, Any], service: str) -> None:
    section = SECTION_OF[service]
    text = long(**{section: f'[{section}.root]\ntype = "race"\nmembers = ["{entry["url"]}"]\n'})
    if accepted(entry, service):
        nodes = graph_of(text).of(KIND_OF[service])
        assert {"root", "root.members-1"} <= nodes.keys()
    else:
        (mistake,) = mistakes_in(text)
        assert mistake.startswith(f"[{section}.root]: members: #1: ")
        assert "write " in mistake or "leave it out" in mistake
        if entry["url"].startswith(("redb", "bigtable")):
            assert 'type = "local"' in mistake


def test_a_url_is_a_new_node_each_time() -> None:
    text = long(
        directoryservices="""
[directoryservices.root]
type = "race"
members = ["memory://", "memory://", "cache://?near=memory://&far=root.members-1"]
[directoryservices."root.members-1"]
type = "memory"
"""
    )
    graph = graph_of(text)
    root = graph.directories["root"]
    assert isinstance(root, RaceNode)
    assert root.members == ("root.members-1-2", "root.members-2", "root.members-3")
    assert graph.directories["root.members-3"] == CacheNode(
        near="root.members-3.near", far="root.members-1"
    )


def test_a_nix_url_has_its_keys_and_where_its_content_goes() -> None:
    encoded = KEY.replace("+", "%2B")
    for space in ("+", "%20", " "):
        url = (
            f"nix+https://cache.example.org/x?trusted-public-keys={encoded}{space}{encoded}"
            "&blob_service=memory://&directory_service=root"
        )
        text = f'[pathinfoservices.root]\ntype = "readonly"\ninner = "{url}"\n'
        graph = graph_of(long(pathinfoservices=text))
        node = graph.path_infos["root.inner"]
        assert isinstance(node, NixNode)
        assert node.base_url == "https://cache.example.org/x"
        assert [str(key) for key in node.public_keys or ()] == [KEY, KEY]
        assert node.blob_service == "root.inner.blob_service"
        assert "root.inner.blob_service" in graph.blobs


def test_urls_within_urls_come_to_an_end() -> None:
    url = "memory://"
    for _ in range(12):
        url = "cache://?near=memory://&far=" + url.replace("%", "%25").replace("&", "%26")
    text = f'[directoryservices.root]\ntype = "readonly"\ninner = "{url}"\n'
    mistakes = mistakes_in(long(directoryservices=text))
    assert all(mistake.endswith("has too many URLs in one another") for mistake in mistakes)


def test_a_chain_without_end_is_refused() -> None:
    tables = [
        f'[blobservices.{"root" if n == 0 else n}]\ntype = "readonly"\ninner = "{n + 1}"\n'
        for n in range(100)
    ]
    text = long(blobservices="".join(tables) + '[blobservices.100]\ntype = "memory"\n')
    (mistake,) = mistakes_in(text)
    assert mistake.endswith("stands on too many nodes, each over the next: use fewer")


def test_the_daemons_keys_count_for_every_binary_cache() -> None:
    nix = '[pathinfoservices.root]\ntype = "nix"\nbase_url = "https://cache.example.org"\n'
    node = graph_of(long(pathinfoservices=nix)).path_infos["root"]
    assert isinstance(node, NixNode) and node.public_keys is None
    node = graph_of(f'[daemon]\npublic_keys = ["{KEY}"]\n' + long(pathinfoservices=nix)).path_infos[
        "root"
    ]
    assert isinstance(node, NixNode)
    assert [str(key) for key in node.public_keys or ()] == [KEY]


def test_local_nodes_with_one_path_have_one_mind() -> None:
    config = load(
        long(
            blobservices='[blobservices.root]\ntype = "local"\npath = "state"\nmax_size = 2048\n',
            directoryservices='[directoryservices.root]\ntype = "local"\npath = "x/../state"\n',
        )
    )
    node = lower(config).directories["root"]
    assert isinstance(node, LocalNode)
    assert node.max_size == config.store.max_size == 2048


def test_every_type_loads_on_every_service_that_it_is_for() -> None:
    config = load((HERE / "long.toml").read_text())
    graph = lower(config)
    written = {(kind, node.type) for kind, _, node in graph.nodes()}
    assert written == {(kind, name) for kind in KINDS for name in NODE_TYPES[kind]}
    # Faults on purpose are warned of wherever they are, and there is no such key file.
    assert {warning.rule for warning in lint(config)} == {"chaos", "readable-key"}


def shown(config: Config) -> str:
    return show(config.daemon, lower(config)) + "\n"


def test_the_long_form_is_shown_as_it_is() -> None:
    assert shown(load((HERE / "long.toml").read_text())) == (HERE / "long.txt").read_text()


def test_what_has_no_way_from_a_root_is_warned_of() -> None:
    text = long(blobservices=MEMORY["blobservices"] + '[blobservices.x]\ntype = "memory"\n')
    assert warnings(text) == ["[blobservices.x]: nothing leads from a root to this node"]


NIX = '[pathinfoservices.nix]\ntype = "nix"\nbase_url = "https://cache.example.org"\n'
OFFICE = '[pathinfoservices.office]\ntype = "grpc"\nurl = "grpc+http://office.example:8000"\n'


def over(inner: str, table: str, keys: str = "") -> str:
    root = f'[pathinfoservices.root]\ntype = "verify"\ninner = "{inner}"\n{keys}\n'
    return long(pathinfoservices=root + table)


def test_a_binary_cache_whose_word_is_taken_is_warned_of() -> None:
    (warning,) = warnings(over("nix", NIX))
    assert warning.startswith("[pathinfoservices.nix]: public_keys: is missing: whoever runs")
    assert warnings(over("nix", NIX, f'public_keys = ["{KEY}"]')) == []
    assert warnings(over("nix", NIX + f'public_keys = ["{KEY}"]\n')) == []


def test_a_daemon_whose_word_is_taken_is_warned_of() -> None:
    root = '[pathinfoservices.root]\ntype = "readonly"\ninner = "office"\n'
    (warning,) = warnings(long(pathinfoservices=root + OFFICE))
    assert warning.startswith("[pathinfoservices.office]: url: is another machine")
    assert warnings(over("office", OFFICE)) == []
    here = OFFICE.replace("office.example:8000", "127.0.0.1:8001")
    assert warnings(long(pathinfoservices=root + here)) == []


def test_a_timeout_that_starves_a_retry_is_warned_of() -> None:
    text = long(
        pathinfoservices=f"""
[pathinfoservices.root]
type = "timeout"
inner = "retry"
attempt = "5s"
[pathinfoservices.retry]
type = "retry"
inner = "nix"
{NIX}
public_keys = ["{KEY}"]
"""
    )
    (warning,) = warnings(text)
    assert warning.startswith("[pathinfoservices.root]: attempt: 5s around a retry")
    assert warnings(text.replace('attempt = "5s"', 'attempt = "20s"')) == []


def test_writes_that_are_only_forgotten_are_warned_of() -> None:
    elsewhere = '[daemon]\ngrpc = "127.0.0.1:8001"\n'
    (warning,) = warnings(elsewhere + long(pathinfoservices=LRU))
    assert warning.startswith('[pathinfoservices.root]: near: "near" forgets')


def test_files_that_are_not_there_are_warned_of() -> None:
    nix = NIX.replace(".nix]", ".root]") + f'public_keys = ["{KEY}"]\ntoken_file = "absent"\n'
    assert warnings(long(pathinfoservices=nix)) == [
        "[pathinfoservices.root]: token_file: /etc/tvix/absent is not a file on this machine"
    ]


def test_a_token_that_others_can_read_is_warned_of() -> None:
    token = OFFICE.replace(".office]", ".root]") + f'token_file = "{__file__}"\n'
    verified = token.replace("http://office.example", "http://[::1]")
    assert warnings(long(pathinfoservices=verified)) == []
    assert (
        "[pathinfoservices.root]: url: is plain http: its token can be read by anybody on the way"
        in (warnings(long(pathinfoservices=token)))
    )


def test_certificates_without_tls_are_warned_of() -> None:
    files = f'ca_file = "{__file__}"\nclient_cert = "{__file__}"\n'
    node = OFFICE.replace(".office]", ".root]").replace("office.example", "[::1]") + files
    assert warnings(long(pathinfoservices=node)) == [
        f"[pathinfoservices.root]: {key}: is of no use: the url is not grpc+https://…"
        for key in ("ca_file", "client_cert")
    ]
    assert warnings(long(pathinfoservices=node.replace("grpc+http:", "grpc+https:"))) == []
