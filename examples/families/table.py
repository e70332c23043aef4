"""Gather the JSON rows of `family.py --json` into the table of docs/families.md.

python examples/families/table.py out/families docs/families.md
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

START, END = "<!-- table of runs -->\n", "<!-- end of table -->\n"
HEAD = (
    "| model | family | weights | prompts | layer | value | intensity at −c, 0, +c | c | "
    "damage at −c, +c | looping | seconds |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown, then what the models said to the first prompt."""
    lines = [_line(row) for row in rows]
    said = [_said(row) for row in rows]
    return HEAD + "".join(lines) + "\n" + "\n".join(said)


def replaced(page: str, table: str) -> str:
    """The page with what stands between the two marks replaced; ValueError without marks."""
    before, opening, rest = page.partition(START)
    _, closing, after = rest.partition(END)
    if not opening or not closing:
        raise ValueError(f"expected the lines {START.strip()!r} and {END.strip()!r} in the page")
    return before + START + "\n" + table + "\n" + END + after


def _line(row: Mapping[str, Any]) -> str:
    low, _, high = row["damage"]
    cells = [
        f"`{row['model']}`",
        row["family"],
        row["dtype"],
        row["format"],
        f"{row['layer']} of {row['layers']}",
        row["value"],
        ", ".join(map(_number, row["intensities"])),
        f"{row['coefficients'][2]:g}",
        f"{_number(low)}, {_number(high)}",
        f"{max(row['degenerate']):.0%}",
        f"{sum(row['seconds']):.0f}",
    ]
    return f"| {' | '.join(cells)} |\n"


def _said(row: Mapping[str, Any]) -> str:
    doses = zip(row["coefficients"][::2], row["texts"], strict=True)
    quoted = [f"- {_number(c)}: {' '.join(text.split()) or '(nothing)'}\n" for c, text in doses]
    return f"`{row['model']}`, asked “{row['prompt']}”:\n\n" + "".join(quoted)


def _number(x: float | None) -> str:
    return "–" if x is None else f"{x:+.2f}".replace("-", "−")


def main() -> None:
    """Read the rows of a folder, largest model last, and rewrite the page."""
    folder, page = map(Path, sys.argv[1:])
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    page.write_text(replaced(page.read_text(encoding="utf-8"), table(rows)), encoding="utf-8")
    print(f"{len(rows)} rows written to {page}")


if __name__ == "__main__":
    main()
