"""Rows written for the tests, in the format of each corpus; no text of a corpus is here."""

import json

from valueflow.vidb.importers import valuebench, valueeval
from valueflow.vidb.importers.moralchoice import RULES


def table(header, *rows, sep=","):
    """Lines of a delimited file; cells that hold the separator are quoted."""
    lines = [header, *rows]
    return "".join(sep.join(_cell(str(c), sep) for c in cells) + "\n" for cells in lines)


def _cell(text, sep):
    return '"' + text.replace('"', '""') + '"' if sep in text else text


def json_table(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def valueeval_arguments(*rows):
    return table(("Argument ID", "Conclusion", "Stance", "Premise"), *rows, sep="\t")


def valueeval_labels(marked, names=tuple(valueeval.CATEGORIES)):
    """Labels file from {argument: names marked}."""
    rows = [(arg, *(int(name in ones) for name in names)) for arg, ones in marked.items()]
    return table(("Argument ID", *names), *rows, sep="\t")


def mfrc(*rows):
    names = ("Equality", "Care", "Non-Moral", "Authority", "Thin Morality", "Loyalty")
    return table(("ID", "text", *names, "Proportionality", "Purity"), *rows, sep="\t")


def social_chem(*rows):
    header = ("action", "situation", "rot-moral-foundations", "action-moral-judgment")
    return table(header, *rows)


def moralchoice(scenario, first, second):
    """One scenario; `first` and `second` are {rule: answer}, the other rules are No."""
    labels = [f"a{i}_{rule}" for i in (1, 2) for rule in RULES]
    cells = [each.get(rule, "No") for each in (first, second) for rule in RULES]
    header = ("scenario_id", "context", "action1", "action2", *labels)
    return table(header, (scenario, "A dam leaks.", "I stay.", "I leave.", *cells))


def valuebench_answers(scale, construct, key, ratings):
    parts = [f"{m}_{part}" for m in valuebench.MODELS for part in ("answer", "rating")]
    header = ("questionnaire info", "corresponding value", "Agreement", "question", *parts)
    given = [c for i, rating in enumerate(ratings) for c in (f"Reply {i}.", rating)]
    return table(header, (scale, construct, key, "Should I climb?", *given))


def valuelens(*rows):
    head = "A title\nA description\nmodel###text###values###intensity\n"
    return head + "".join("###".join(row) + "\r\n" for row in rows)
