"""Touché23-ValueEval: arguments and the values they resort to (SemEval 2023 task 4)."""

from collections.abc import Iterator
from pathlib import Path

from valueflow.errors import InvalidInput
from valueflow.vidb.importers.base import Importer, LeftOut, Row
from valueflow.vidb.importers.reading import delimited, find_files, label_in, seen_once, text_in

# The 20 categories of level 2 are the refined values of Schwartz et al. (2012), which lie below the
# steered ones here, plus one of the corpus's own: no theory of ours has objectivity.
CATEGORIES: dict[str, str | None] = {
    "Self-direction: thought": "svt/self-direction",
    "Self-direction: action": "svt/self-direction",
    "Stimulation": "svt/stimulation",
    "Hedonism": "svt/hedonism",
    "Achievement": "svt/achievement",
    "Power: dominance": "svt/power",
    "Power: resources": "svt/power",
    "Face": "svt/face",
    "Security: personal": "svt/security",
    "Security: societal": "svt/security",
    "Tradition": "svt/tradition",
    "Conformity: rules": "svt/conformity",
    "Conformity: interpersonal": "svt/conformity",
    "Humility": "svt/humility",
    "Benevolence: caring": "svt/benevolence",
    "Benevolence: dependability": "svt/benevolence",
    "Universalism: concern": "svt/universalism",
    "Universalism: nature": "svt/universalism",
    "Universalism: tolerance": "svt/universalism",
    "Universalism: objectivity": None,
}

# The 54 labels of level 1 below their category, as in the corpus's value-categories.json.
FINE: dict[str, tuple[str, ...]] = {
    "Self-direction: thought": ("Be creative", "Be curious", "Have freedom of thought"),
    "Self-direction: action": (
        "Be choosing own goals", "Be independent", "Have freedom of action", "Have privacy",
    ),
    "Stimulation": ("Have an exciting life", "Have a varied life", "Be daring"),
    "Hedonism": ("Have pleasure",),
    "Achievement": (
        "Be ambitious", "Have success", "Be capable", "Be intellectual", "Be courageous",
    ),
    "Power: dominance": ("Have influence", "Have the right to command"),
    "Power: resources": ("Have wealth",),
    "Face": ("Have social recognition", "Have a good reputation"),
    "Security: personal": (
        "Have a sense of belonging", "Have good health", "Have no debts", "Be neat and tidy",
        "Have a comfortable life",
    ),
    "Security: societal": ("Have a safe country", "Have a stable society"),
    "Tradition": ("Be respecting traditions", "Be holding religious faith"),
    "Conformity: rules": ("Be compliant", "Be self-disciplined", "Be behaving properly"),
    "Conformity: interpersonal": ("Be polite", "Be honoring elders"),
    "Humility": ("Be humble", "Have life accepted as is"),
    "Benevolence: caring": (
        "Be helpful", "Be honest", "Be forgiving", "Have the own family secured", "Be loving",
    ),
    "Benevolence: dependability": ("Be responsible", "Have loyalty towards friends"),
    "Universalism: concern": ("Have equality", "Be just", "Have a world at peace"),
    "Universalism: nature": (
        "Be protecting the environment", "Have harmony with nature", "Have a world of beauty",
    ),
    "Universalism: tolerance": ("Be broadminded", "Have the wisdom to accept others"),
    "Universalism: objectivity": ("Be logical", "Have an objective view"),
}  # fmt: skip

# The files spell it both ways.
STANCES = {
    "in favor of": "in favor of",
    "in favour of": "in favor of",
    "against": "against",
}


def read(path: Path) -> Iterator[Row | LeftOut]:
    """Rows of every `arguments-*.tsv` in the folder, or of the one file."""
    once = seen_once("argument")
    for arguments in [path] if path.is_file() else find_files(path, "arguments-*.tsv"):
        marked = _marked(arguments)
        columns = ("Argument ID", "Conclusion", "Stance", "Premise")
        for where, cells in delimited(arguments, columns, delimiter="\t", quoted=False):
            argument = once(where, text_in(where, cells, "Argument ID"))
            if argument not in marked:
                raise InvalidInput(f"{where}: argument {argument!r} has no labels; remove it")
            stance = STANCES[label_in(where, cells, "Stance", STANCES)]
            context = f"{stance}: {text_in(where, cells, 'Conclusion')}"
            text = text_in(where, cells, "Premise")
            yield from _rows(argument, text, context, marked.pop(argument))
        if marked:
            argument, (where, _) = marked.popitem()
            raise InvalidInput(
                f"{where}: labels for {argument!r}, which {arguments.name} lacks; remove them"
            )


def _rows(
    argument: str, text: str, context: str, marked: tuple[str, list[str]]
) -> Iterator[Row | LeftOut]:
    categories = marked[1]
    if not categories:
        yield LeftOut("no value is marked")
    for category in categories:
        if CATEGORIES[category] is None:
            yield LeftOut(f"{category!r} is in no theory")
    for value in dict.fromkeys(CATEGORIES[category] for category in categories):
        if value is not None:
            yield Row(argument, text, context, value)


def _marked(arguments: Path) -> dict[str, tuple[str, list[str]]]:
    """Argument -> (file:line, categories marked), from the labels of either level."""
    stem, _, rest = arguments.name.partition("-")
    coarse = arguments.with_name(f"labels-{rest}")
    fine = arguments.with_name(f"level1-labels-{rest}")
    if stem != "arguments" or not (coarse.is_file() or fine.is_file()):
        raise InvalidInput(
            f"{arguments}: expected arguments-NAME.tsv with labels-NAME.tsv or "
            "level1-labels-NAME.tsv beside it"
        )
    labels, below = (coarse, {c: (c,) for c in CATEGORIES}) if coarse.is_file() else (fine, FINE)
    columns = ["Argument ID", *(label for each in below.values() for label in each)]
    once = seen_once("argument")
    marked = {}
    for where, cells in delimited(labels, columns, delimiter="\t", quoted=False):
        argument = once(where, text_in(where, cells, "Argument ID"))
        ones = {label for label in columns[1:] if label_in(where, cells, label, ("0", "1")) == "1"}
        marked[argument] = where, [c for c, each in below.items() if ones.intersection(each)]
    return marked


IMPORTER = Importer(
    name="valueeval23",
    title="Touché23-ValueEval (SemEval 2023 task 4)",
    licence="CC BY-SA 4.0",
    files="the folder with arguments-*.tsv and, beside each, labels-*.tsv or level1-labels-*.tsv",
    mapping=(
        "text = premise, context = stance and conclusion. A category that is marked (three "
        "annotators, aggregated by the corpus) gives the steered Schwartz value it refines; the 54 "
        "labels of level 1 are read through their category when labels-*.tsv is not there. An "
        "argument resorts to a value: that says nothing about direction or degree. Left out: "
        "'Universalism: objectivity', which is in no theory."
    ),
    read=read,
)
