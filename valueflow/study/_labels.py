"""Where names beside the points of a picture find room."""

import numpy as np

from valueflow.study._image import DPI

REACHES = (0.11, 0.14, 0.19, 0.26, 0.38, 0.55, 0.8, 1.2, 1.7)
"""Inches from a point to its name, nearest first."""

BETWEEN = np.array([0.05, 0.015]) * DPI
"""Pixels, across and up, that part two names."""


def label_places(
    points: np.ndarray, sizes: np.ndarray, taken: np.ndarray, frame: np.ndarray
) -> np.ndarray:
    """Centres of names, in pixels: in the frame, on no mark or other name, near their points.

    Greedy, the most crowded first. Where all places are taken the one that meets fewest is used.
    """
    boxes = np.hstack([taken - 0.055 * DPI, taken + 0.055 * DPI])
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    crowd = np.sort(apart, axis=1)[:, 1:4].mean(axis=1)
    angle = np.arange(24) * np.pi / 12
    # Squarish: beside and above its point a name comes as near as at its corners.
    way = np.clip(1.5 * np.column_stack([np.cos(angle), np.sin(angle)]), -1, 1)
    way, reach = np.tile(way, (len(REACHES), 1)), np.repeat(REACHES, len(angle)) * DPI
    centres = np.zeros_like(points)
    for i in np.argsort(crowd, kind="stable"):
        tried = points[i] + way * (sizes[i] / 2 + reach[:, None])
        own = np.hstack([tried - sizes[i] / 2, tried + sizes[i] / 2])
        outside = (own[:, :2] < frame[:2]).any(axis=1) | (own[:, 2:] > frame[2:]).any(axis=1)
        # A place close to other marks and names is free, but leaves in doubt whose name it is.
        close = _meets(own, boxes, np.full(2, 0.13 * DPI))
        cost = reach + 0.06 * DPI * close + 1e4 * _meets(own, boxes, BETWEEN) + 1e6 * outside
        best = int(np.argmin(np.round(cost, 3)))
        centres[i], boxes = tried[best], np.vstack([boxes, own[best]])
    return centres


def _meets(own: np.ndarray, boxes: np.ndarray, room: np.ndarray) -> np.ndarray:
    """How many of `boxes` each of `own` overlaps, or has within `room`."""
    low, high = own[:, None, :2] - room, own[:, None, 2:] + room
    return ((low < boxes[:, 2:]) & (high > boxes[:, :2])).all(axis=2).sum(axis=1)
