"""Figures as files' contents: no version, date or drawn ids, so equal figures are equal files."""

import io

from matplotlib import rc_context
from matplotlib.figure import Figure

DPI = 180

_UNSAID = {"png": {"Software": None}, "svg": {"Creator": None, "Date": None}}


def image_bytes(figure: Figure, kind: str = "png") -> bytes:
    """A figure as "png" or "svg", on white."""
    stream = io.BytesIO()
    with rc_context({"svg.hashsalt": "valueflow"}):
        figure.savefig(stream, format=kind, dpi=DPI, facecolor="white", metadata=_UNSAID[kind])
    return stream.getvalue()
