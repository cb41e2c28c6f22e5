"""Directories and Nodes against an independent reader and writer: Google's protobuf.

The messages are described here from the published field numbers, not generated from our files.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from tests.castore.samples import directories, names, nodes
from tvixstore.castore import (
    Directory,
    DirectoryNode,
    FileNode,
    Node,
    SymlinkNode,
    decode_directory,
    decode_node,
    encode_directory,
    encode_node,
)
from tvixstore.errors import InvalidData

_Field = descriptor_pb2.FieldDescriptorProto
_BYTES, _UINT64, _BOOL = _Field.TYPE_BYTES, _Field.TYPE_UINT64, _Field.TYPE_BOOL

# The fields of each message in the order of their numbers, from 1.
_MESSAGES: dict[str, dict[str, Any]] = {
    "DirectoryNode": {"name": _BYTES, "digest": _BYTES, "size": _UINT64},
    "FileNode": {"name": _BYTES, "digest": _BYTES, "size": _UINT64, "executable": _BOOL},
    "SymlinkNode": {"name": _BYTES, "target": _BYTES},
    "Directory": {"directories": "DirectoryNode", "files": "FileNode", "symlinks": "SymlinkNode"},
    "Node": {"directory": "DirectoryNode", "file": "FileNode", "symlink": "SymlinkNode"},
}


def _describe() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="castore.proto", package="tvix.castore.v1", syntax="proto3"
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        if message_name == "Node":
            message.oneof_decl.add(name="node")
        for number, (name, kind) in enumerate(fields.items(), 1):
            field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                field.type = _Field.TYPE_MESSAGE
                field.type_name = f".tvix.castore.v1.{kind}"
                if message_name == "Directory":
                    field.label = _Field.LABEL_REPEATED
                else:
                    field.oneof_index = 0
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tvix.castore.v1.{name}"))
        for name in _MESSAGES
    }


PROTOBUF = _describe()


def _fill(message: Any, name: bytes, node: Node) -> None:
    message.name = name
    if isinstance(node, SymlinkNode):
        message.target = node.target
        return
    message.digest = node.digest.raw
    message.size = node.size
    if isinstance(node, FileNode):
        message.executable = node.executable


def _directory_message(directory: Directory) -> Message:
    message = PROTOBUF["Directory"]()
    lists = {
        DirectoryNode: message.directories,
        FileNode: message.files,
        SymlinkNode: message.symlinks,
    }
    for name, node in directory:
        _fill(lists[type(node)].add(), name, node)
    assert isinstance(message, Message)
    return message


def _node_message(name: bytes, node: Node) -> Message:
    message = PROTOBUF["Node"]()
    fields = {DirectoryNode: "directory", FileNode: "file", SymlinkNode: "symlink"}
    _fill(getattr(message, fields[type(node)]), name, node)
    assert isinstance(message, Message)
    return message


@given(directories)
def test_protobuf_reads_and_writes_the_same_directories(directory: Directory) -> None:
    message = _directory_message(directory)
    wire = message.SerializeToString(deterministic=True)
    assert encode_directory(directory) == wire
    assert decode_directory(wire) == directory
    assert PROTOBUF["Directory"].FromString(encode_directory(directory)) == message


@given(st.one_of(st.just(b""), names), nodes)
def test_protobuf_reads_and_writes_the_same_nodes(name: bytes, node: Node) -> None:
    message = _node_message(name, node)
    wire = message.SerializeToString(deterministic=True)
    assert encode_node(node, name) == wire
    assert decode_node(wire) == (name, node)
    assert PROTOBUF["Node"].FromString(wire) == message


@given(directories, st.data())
def test_what_we_take_protobuf_takes_and_writes_again_alike(
    directory: Directory, data: st.DataObject
) -> None:
    wire = bytearray(directory.wire)
    for _ in range(data.draw(st.integers(0, 3)) if wire else 0):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_directory(bytes(wire))
    except InvalidData:
        return
    message = PROTOBUF["Directory"].FromString(bytes(wire))
    assert message == _directory_message(decoded)
    assert message.SerializeToString(deterministic=True) == bytes(wire)


@given(st.binary(max_size=80))
def test_what_protobuf_refuses_we_refuse(wire: bytes) -> None:
    try:
        PROTOBUF["Directory"].FromString(wire)
    except DecodeError:
        try:
            decode_directory(wire)
        except InvalidData:
            return
        raise AssertionError(f"{wire!r} was taken") from None
