"""Theories of human values: their trees, and the 32 values that are measured and steered."""

from valueflow.theories.anchors import anchors_of as anchors_of
from valueflow.theories.anchors import load_anchors as load_anchors
from valueflow.theories.base import Theory as Theory
from valueflow.theories.base import Value as Value
from valueflow.theories.lookup import get_theory as get_theory
from valueflow.theories.lookup import get_value as get_value
from valueflow.theories.lookup import steered_values as steered_values
from valueflow.theories.lookup import theories as theories
