"""Every error a user can meet.

Each message says what was expected, what came, and how to mend it. `ValueflowError` is the one
class a caller has to catch; the command line prints it as one line and exits with code 2.
"""


class ValueflowError(Exception):
    """Base of all errors that a user's input or environment can cause."""


class UnknownName(ValueflowError, KeyError):
    """A name (value, theory, model, judge, estimator) that is not known; lists near misses."""

    def __str__(self) -> str:
        # KeyError would print the repr of the message, quotes and escapes included.
        return str(self.args[0])


class InvalidInput(ValueflowError, ValueError):
    """An argument or file whose content is not what was asked for."""


class LayerNotFound(ValueflowError):
    """The decoder blocks of a model could not be identified; lists the candidates."""


class NotFitted(ValueflowError):
    """An estimator was used before `fit`."""


class ModelUnavailable(ValueflowError):
    """Weights could not be had: no network, wrong checksum, full disk, unknown source."""


class BackendUnavailable(ValueflowError):
    """A tool that is to run the model is missing."""


class JudgeUnavailable(ValueflowError):
    """A judge cannot answer at all: a package or key is missing, or its server refuses."""


class ArtifactError(ValueflowError):
    """A saved artifact is damaged, of an unknown schema, or of another kind."""


class StaleArtifact(ArtifactError):
    """A saved artifact was made for another model, template, layer set or judge."""


class NoSignal(InvalidInput):
    """A judge does not order texts by the value it was asked about."""
