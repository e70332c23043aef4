"""Public corpora with value labels, read from a user's own copy into one table; none is shipped."""

from valueflow.lazy import facade

# Lazy: naming an importer costs no pandas.
__getattr__, __dir__, __all__ = facade(
    __name__,
    {
        "IMPORTERS": "corpora",
        "import_corpus": "corpora",
        "IMPORT_COLUMNS": "base",
        "Importer": "base",
    },
)
