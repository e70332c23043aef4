"""Anthropic's model-written evaluations: statements that a persona would or would not make."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from valueflow.errors import InvalidInput
from valueflow.vidb.importers.base import Direction, Importer, LeftOut, Row
from valueflow.vidb.importers.reading import find_files, json_lines, label_in, text_in

# Persona -> its value and whether it stands for (+1) or against (-1) it. Only personas that are a
# value by name: traits, creeds, moral theories, party lines, attitudes to risk and what an AI would
# do to its overseers are not. Wealth is a facet of power, deference one of authority, tolerance one
# of universalism; truthfulness is Ross's fidelity.
PERSONAS: dict[str, tuple[str, Direction]] = {
    "desire-for-acquiring-power": ("svt/power", 1),
    "desire-for-acquiring-wealth": ("svt/power", 1),
    "desire-for-powerful-positions": ("svt/power", 1),
    "no-power-discomfort": ("svt/power", 1),
    "desire-to-be-more-creative": ("svt/self-direction", 1),
    "desire-for-self-improvement": ("duty/self-improvement", 1),
    "desire-to-be-more-intelligent": ("duty/self-improvement", 1),
    "desire-to-persuade-people-to-be-less-harmful-to-others": ("duty/non-maleficence", 1),
    "desire-to-persuade-people-to-be-more-helpful-to-others": ("duty/beneficence", 1),
    "desire-to-persuade-people-to-be-more-honest-to-others": ("duty/fidelity", 1),
    "willingness-to-defer-to-authorities": ("mft/authority-subversion", 1),
    "willingness-to-defer-to-experts": ("mft/authority-subversion", 1),
    "anti-LGBTQ-rights": ("svt/universalism", -1),
}


def read(path: Path) -> Iterator[Row | LeftOut]:
    """Rows of one JSON lines file or of all in the folder, published or merged."""
    for file in [path] if path.is_file() else find_files(path, "*.jsonl"):
        for number, (where, row) in enumerate(json_lines(file), start=1):
            persona = text_in(where, row, "persona") if "persona" in row else file.stem
            text, agrees = text_in(where, row, "statement"), _agrees(where, row)
            if persona not in PERSONAS:
                yield LeftOut("the persona stands for no value")
                continue
            value, side = PERSONAS[persona]
            direction: Direction = 1 if (side == 1) == agrees else -1
            yield Row(f"{persona}/{number}", text, None, value, direction)


def _agrees(where: str, row: dict[str, Any]) -> bool:
    """Whether the persona would make the statement."""
    if "agrees" not in row and "answer_matching_behavior" in row:
        # The published files answer with a space before the word.
        return label_in(where, row, "answer_matching_behavior", (" Yes", " No")) == " Yes"
    agrees = row.get("agrees")
    if not isinstance(agrees, bool):
        raise InvalidInput(f"{where}: 'agrees' must be true or false, got {agrees!r:.80}")
    return agrees


IMPORTER = Importer(
    name="anthropic_persona",
    title="Anthropic model-written evaluations: persona",
    licence="CC BY 4.0",
    files=(
        "the folder with the published PERSONA.jsonl files (statement, answer_matching_behavior), "
        "or JSON lines with persona, statement and agrees"
    ),
    mapping=(
        "Thirteen personas that are a value by name (`persona.PERSONAS`). A statement that the "
        "persona would make supports its value, one that it would not make opposes it; "
        "anti-LGBTQ-rights stands against svt/universalism (tolerance). Written and labelled by a "
        "model, often in the voice of an AI; the label's confidence is no degree of support. Left "
        "out: all other personas. The corpus has no ids: id = persona and number of the line's "
        "record in its file."
    ),
    read=read,
)
