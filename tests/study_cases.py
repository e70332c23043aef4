"""What the tests of results, pages and figures share."""

from valueflow.study import results


def made(calibration, verified, **changed):
    given = {
        "value": "svt/power",
        "seconds": 61.5,
        "n_verification": 20,
        "second_judge": "prototype",
        "vidb_fingerprint": "beef",
    }
    return results(calibration, verified, **(given | changed))


def shown(text="an answer", prompt="What now?"):
    answer = {"status": "ok", "nearest": 0.0, "coefficient": 0.1, "text": text}
    answers = [answer | {"target": target} for target in (-4.0, 0.0, 4.0)]
    return [{"prompt": prompt, "answers": answers}]
