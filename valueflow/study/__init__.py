"""The whole loop, and what it showed: results as plain JSON, a figure and a page."""

from valueflow.lazy import facade

# Lazy: matplotlib, jinja2 and torch are for those who report.
__getattr__, __dir__, __all__ = facade(
    __name__,
    {
        "Loop": "runner",
        "compare_figure": "compare_plot",
        "compare_value": "compare",
        "dose_figure": "plots",
        "LayerSweep": "layer_sweep",
        "layer_figure": "layer_plot",
        "results": "report",
        "run_comparison": "compare_run",
        "run_demo": "runner",
        "run_loop": "runner",
        "summarise": "compare_summary",
        "write_report": "report",
    },
)
