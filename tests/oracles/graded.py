"""What the axes of the values are taught, pair by pair in plain floats."""

import math


def graded_contrast(scores, columns, values, intensities, scenes, neutral_weight):
    """`values`, `intensities` and `scenes` are per text, `columns` says whose each score is."""
    known = [i for i, x in enumerate(intensities) if not math.isnan(x)]
    total = 0.0
    for value in {values[i] for i in known}:
        column = [row[columns.index(value)] for row in scores]
        own = [i for i in known if values[i] == value]
        foreign = [i for i in known if values[i] != value]
        intensity = {i: intensities[i] if i in own else 0.0 for i in known}

        def mean(pairs, column=column, intensity=intensity):
            return _weighted_mean(pairs, column, intensity)

        pairs = [(a, b) for a in own for b in own]
        within = [(a, b) for a, b in pairs if scenes[a] is not None and scenes[a] == scenes[b]]
        crossed = [(a, b) for a in own for b in foreign] + [(b, a) for a in own for b in foreign]
        one_scene, everywhere = mean(within), mean(pairs) or 0.0
        loss = 0.5 * everywhere + 0.5 * (everywhere if one_scene is None else one_scene)
        loss += neutral_weight * (mean(crossed) or 0.0)
        total += len(own) / len(known) * loss
    return total


def _weighted_mean(pairs, column, intensity):
    """Over pairs (high, low); None where no pair counts."""
    above = below = 0.0
    for high, low in pairs:
        gap = intensity[high] - intensity[low]
        if gap > 1.5:
            weight = min(gap, 8.0)
            above += weight * _softplus(column[low] - column[high])
            below += weight
    return above / below if below else None


def touch_contrast(scores, touched, asked):
    """Lists of lists and a list of columns' flags."""
    means = []
    for k, wanted in enumerate(asked):
        yes = [abs(row[k]) for row, own in zip(scores, touched, strict=True) if own[k]]
        no = [abs(row[k]) for row, own in zip(scores, touched, strict=True) if not own[k]]
        if wanted and yes and no:
            losses = [_softplus(b - a) for a in yes for b in no]
            means.append(sum(losses) / len(losses))
    return sum(means) / len(means) if means else 0.0


def _softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
