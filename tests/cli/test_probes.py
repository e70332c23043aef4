import json

from valueflow.steering import load_probes


def test_probes_are_trained_and_shown(run, model_folder, tmp_path):
    out = tmp_path / "probes"
    done = run(
        "probes", "train", model_folder, "--value", "right/civil", "--layer", 1, "--out", out,
        "--seed", 1, "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert done.code == 0, done
    assert "right/civil" in done.out
    probes = load_probes(out)
    assert list(probes) == ["right/civil"]
    result = json.loads((tmp_path / "r.json").read_text())["right/civil"]
    readout = probes["right/civil"].readouts[1]
    assert result["test"] == readout.test.estimate
    assert result["low"] < result["test"] < result["high"]
    shown = run("probes", "show", out)
    assert shown.code == 0
    assert f"{readout.test.estimate:.3f}" in shown.out
    assert run("probes", "train", model_folder, "--value", "power", "--out", out).refused("--out")


def test_what_probes_refuse(run, model_folder, tmp_path):
    out = ("--out", tmp_path / "x")
    assert run("probes", "train", model_folder, *out).refused("either --value", "--all")
    assert run("probes", "train", model_folder, "--all", "--value", "power", *out).refused("either")
    assert run("probes", "train", model_folder, "--value", "powr", *out).refused("power")
    wrong = run("probes", "train", model_folder, "--value", "power", "--estimator", "pa", *out)
    assert wrong.refused("unknown estimator", "pca")
    assert run("probes", "show", "no-such-model").refused(
        "no-such-model", "`valueflow probes train MODEL --all --out FOLDER`"
    )
