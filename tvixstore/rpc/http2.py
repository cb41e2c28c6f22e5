"""What grpclib's side of HTTP/2 does not bear, and peers may send; and what costs for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpclib.protocol import EventsProcessor
from h2.frame_buffer import FrameBuffer
from hyperframe.frame import DataFrame

if TYPE_CHECKING:
    from h2.connection import H2Connection
    from h2.events import DataReceived, Event
    from hyperframe.frame import Frame


class TolerantProcessor(EventsProcessor):
    """Drops what means nothing, and would break a stream or the connection."""

    def process(self, event: Event) -> None:
        # Frames of kinds that nobody knows are to be ignored. Once closed there are no processors
        # left, and whatever still comes means nothing.
        processors: dict[type[Event], Any] = getattr(self, "processors", {})
        if (process := processors.get(type(event))) is not None:
            process(event)

    def process_data_received(self, event: DataReceived) -> None:
        # An empty frame is legal anywhere; grpclib takes one for the stream's end.
        if event.flow_controlled_length:
            super().process_data_received(event)


def hush(connection: H2Connection) -> None:
    """Has a new connection describe no data that comes, which halves what that costs.

    For a log that nobody keeps h2 writes down each frame, and all of its body in hexadecimal.
    """
    table = connection._frame_dispatch_table
    table[_QuietData] = table[DataFrame]
    connection.incoming_buffer = _Frames(server=not connection.config.client_side)


class _QuietData(DataFrame):
    def _body_repr(self) -> str:
        return f"{len(self.data)} bytes"


class _Frames(FrameBuffer):
    def __next__(self) -> Frame:
        frame = super().__next__()
        if type(frame) is DataFrame:
            frame.__class__ = _QuietData
        return frame
