"""Plackett-Luce by hand: products over stages in plain floats, and optimisers that know nothing."""

import math

import numpy as np
from scipy.optimize import minimize, minimize_scalar


def likelihood(rankings, theta):
    product = 1.0
    for ranking in rankings:
        for stage in range(len(ranking)):
            weights = [math.exp(theta[i]) for i in ranking[stage:]]
            product *= weights[0] / math.fsum(weights)
    return product


def log_likelihood(rankings, theta):
    """Sum over rankings, so that many of them do not underflow."""
    return math.fsum(math.log(likelihood([ranking], theta)) for ranking in rankings)


def maximise(rankings, n_items, ridge=0.0):
    """The maximum, mean zero; no derivative is told."""

    def loss(theta):
        theta = [float(t) for t in theta]
        return 0.5 * ridge * math.fsum(t * t for t in theta) - log_likelihood(rankings, theta)

    theta = np.zeros(n_items)
    for _ in range(3):  # a fresh start repairs a Hessian that rounding spoilt
        theta = minimize(loss, theta, method="BFGS", jac="3-point", options={"gtol": 1e-9}).x
    return theta - theta.mean()


def maximise_one(rankings, utilities, item):
    """The item's position where all others stand still."""

    def loss(position):
        return -log_likelihood(rankings, [*utilities[:item], position, *utilities[item + 1 :]])

    return float(
        minimize_scalar(loss, bounds=(-50, 50), options={"xatol": 1e-9}, method="bounded").x
    )


def gradient(function, theta, step=1e-5):
    """Central differences of a function of a list."""
    columns = []
    for i in range(len(theta)):
        up, down = list(theta), list(theta)
        up[i] += step
        down[i] -= step
        columns.append((np.asarray(function(up)) - np.asarray(function(down))) / (2 * step))
    return np.stack(columns, axis=-1)


def ranked_above(rankings, n_items):
    """Whether a chain of rankings leads from the row's item down to the column's."""
    above = np.zeros((n_items, n_items), dtype=bool)
    for ranking in rankings:
        for place, winner in enumerate(ranking):
            above[winner, list(ranking[place + 1 :])] = True
    for middle in range(n_items):
        above |= above[:, [middle]] & above[[middle], :]
    return above


def paper_position(rankings, intensities, item):
    """The published evaluator's rule: ridge 1e-3, bisection on [-20, 20], then its guards."""
    anchors = [min(max(x, -10.0), 10.0) for x in intensities]
    met = [anchors[i] for r in rankings if item in r for i in r if i != item]
    firsts = [r[0] == item for r in rankings if item in r]
    lasts = [r[-1] == item for r in rankings if item in r]

    def slope(position):
        total = -1e-3 * position
        for ranking in rankings:
            for stage in range(len(ranking)):
                if item not in ranking[stage:]:
                    break
                weights = [math.exp(anchors[i]) for i in ranking[stage:] if i != item]
                own = math.exp(position)
                total += (ranking[stage] == item) - own / (own + math.fsum(weights))
        return total

    low, high = -20.0, 20.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    if all(lasts):
        return max(math.nextafter(min(met), -math.inf), -10.0)
    if all(firsts):
        return min(math.nextafter(max(met), math.inf), 10.0)
    return min(max(low, min(met)), max(met))
