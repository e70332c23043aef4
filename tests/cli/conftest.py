import re
import sys
from typing import NamedTuple

import pytest
import tiny

from valueflow.cli.main import main
from valueflow.judges.scripted import ScriptedJudge
from valueflow.vidb import load_starter


class Done(NamedTuple):
    code: int
    out: str
    err: str

    def refused(self, *words):
        """Whether it ended as bad input does: code 2 and one line that has all the words."""
        lines = self.err.strip().splitlines()
        assert self.code == 2, self
        assert len(lines) == 1, self
        assert lines[0].startswith("valueflow: ")
        for word in words:
            assert word in lines[0]
        return True


@pytest.fixture
def run(monkeypatch, capsys):
    """`run("theories", "power")` as from a shell; what is written is captured."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["valueflow", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
            sys.exit(0)
        shown = capsys.readouterr()
        plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.out)
        return Done(int(left.value.code or 0), plain, shown.err)

    return command


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny.tiny_model("llama").save_pretrained(folder)
    tiny.tiny_tokenizer(chat=True).save_pretrained(folder)
    return folder


@pytest.fixture
def scripted(monkeypatch):
    """Puts a judge that knows in place of every judge: `scripted(lambda text: ...)`.

    It knows the database's texts by their grades, and others by the function.
    """
    frame = load_starter().of("power").frame
    graded = dict(zip(frame["text"], frame["intensity"], strict=True))

    def install(intensity):
        def known(item):
            return graded[item.text] if item.text in graded else intensity(item.text)

        def judge():
            return ScriptedJudge(known, sharpness=1.5, seed=5)

        monkeypatch.setattr("valueflow.judges.base.get_judge", lambda name: judge())
        return judge

    return install
