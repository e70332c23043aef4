"""valueflow: human values in language models at chosen, measured intensities."""

__version__ = "0.1.0"
