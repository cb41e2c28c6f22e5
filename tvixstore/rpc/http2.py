"""What grpclib's side of HTTP/2 does not bear, and peers may send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpclib.protocol import EventsProcessor

if TYPE_CHECKING:
    from h2.events import DataReceived, Event


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
