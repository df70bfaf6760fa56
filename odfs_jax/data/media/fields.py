"""Interlaced video: a frame is two fields, every other row each, one later than the other.

libav marks every frame with their order, and converts colors by fields where it is marked. PyAV
neither shows that mark nor sets it, so two of libav's filters do.
"""

from fractions import Fraction

import av
from av.codec.context import Flags

CODES = {"tff": 2, "bff": 3}  # the field of the top row first, or last; and libav's AVFieldOrder
ENCODERS = ("libx264", "prores_ks", "ffv1")  # that keep fields
ROWS = 4  # of which the height is a multiple, where chroma has half the rows in each field


def field_order(frame: av.VideoFrame) -> str | None:
    """Which field of a decoded `frame` comes first, a key of CODES; None for a whole picture."""
    if not frame.interlaced_frame:
        return None
    graph = _graph(frame, "select", r"eq(interlace_type\,TOPFIRST)")
    graph.push(frame)
    try:
        graph.pull()
    except av.BlockingIOError:  # not selected
        return "bff"
    return "tff"


def set_order(context: av.VideoCodecContext, order: str) -> None:
    """Has the encoder of `context`, one of ENCODERS, write fields in `order`, a key of CODES."""
    context.flags |= int(Flags.interlaced_dct | Flags.interlaced_me)
    context.field_order = CODES[order]


class FieldMarker:
    """Marks frames of one size as fields in `order`, a key of CODES."""

    def __init__(self, order: str) -> None:
        self._order = order
        self._graphs: dict[str, av.filter.Graph] = {}  # by pixel format

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """`frame` with the mark; its samples are not copied."""
        name = frame.format.name
        if name not in self._graphs:
            self._graphs[name] = _graph(frame, "setfield", self._order)
        self._graphs[name].push(frame)
        return self._graphs[name].pull()


def _graph(frame: av.VideoFrame, name: str, argument: str) -> av.filter.Graph:
    """One filter of libav's for frames like `frame`."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
    )
    step, sink = graph.add(name, argument), graph.add("buffersink")
    source.link_to(step)
    step.link_to(sink)
    graph.configure()
    return graph
