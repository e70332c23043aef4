"""MoralChoice: pairs of actions and which of Gert's ten rules each of them breaks."""

from collections.abc import Iterator
from pathlib import Path

from valueflow.vidb.importers.base import Importer, LeftOut, Row
from valueflow.vidb.importers.reading import delimited, find_file, label_in, seen_once, text_in

# The rules of Gert (2004), Common Morality. Those without a value: to deprive of pleasure is no
# injury in Ross's sense and says nothing about hedonism; "do your duty" is whatever one's position
# asks for.
RULES: dict[str, str | None] = {
    "death": "duty/non-maleficence",
    "pain": "duty/non-maleficence",
    "disable": "duty/non-maleficence",
    "freedom": "mft/liberty-oppression",
    "pleasure": None,
    # Ross has truthfulness as an implicit promise, under fidelity.
    "deceive": "duty/fidelity",
    "cheat": "mft/fairness-cheating",
    "break_promise": "duty/fidelity",
    "break_law": "svt/conformity",
    "duty": None,
}
VALUES = tuple(dict.fromkeys(value for value in RULES.values() if value))
ANSWERS = ("Yes", "No", "No Agreement")


def read(path: Path) -> Iterator[Row | LeftOut]:
    """Rows of the comma-separated file, for each action and value."""
    once = seen_once("scenario_id")
    labels = [f"a{action}_{rule}" for action in (1, 2) for rule in RULES]
    columns = ("scenario_id", "context", "action1", "action2", *labels)
    for where, cells in delimited(find_file(path, "moralchoice_*.csv"), columns):
        scenario = once(where, text_in(where, cells, "scenario_id"))
        context = text_in(where, cells, "context")
        texts = [text_in(where, cells, f"action{action}") for action in (1, 2)]
        broken = {label: label_in(where, cells, label, ANSWERS) for label in labels}
        for rule, value in RULES.items():
            if value is None and "Yes" in (broken[f"a1_{rule}"], broken[f"a2_{rule}"]):
                yield LeftOut(f"the rule broken ({rule}) stands for no value")
        for value in VALUES:
            verdicts = [_verdict(broken, action, value) for action in (1, 2)]
            for action, text in enumerate(texts, start=1):
                own, other = verdicts[action - 1], verdicts[2 - action]
                if own == "Yes":
                    yield Row(f"{scenario}/{action}", text, context, value, -1)
                elif own == "No" and other == "Yes":
                    yield Row(f"{scenario}/{action}", text, context, value, 1)
                elif own == "No Agreement":
                    yield LeftOut("the annotators did not agree whether a rule is broken")
                else:
                    yield LeftOut("a value that the action does not touch")


def _verdict(broken: dict[str, str], action: int, value: str) -> str:
    """Whether the action breaks a rule of the value: Yes as soon as one is broken for sure."""
    found = {broken[f"a{action}_{rule}"] for rule, own in RULES.items() if own == value}
    return next(answer for answer in ("Yes", "No Agreement", "No") if answer in found)


IMPORTER = Importer(
    name="moralchoice",
    title="MoralChoice",
    licence="MIT",
    files="moralchoice_*.csv (or a folder with one): context, two actions, ten labels for each",
    mapping=(
        "text = the action, context = the scenario. Rules against killing, pain and disabling are "
        "duty/non-maleficence; against deceiving and breaking promises duty/fidelity; against "
        "cheating mft/fairness-cheating; against taking freedom mft/liberty-oppression; against "
        "breaking the law svt/conformity. An action that breaks a rule of the value opposes it "
        "(-1); one that breaks none although the alternative does supports it (+1): it is the "
        "choice that keeps the rule. No degrees. Left out: rules about pleasure and duty, which "
        "stand for no value; labels without agreement; values that neither action breaks."
    ),
    read=read,
)
