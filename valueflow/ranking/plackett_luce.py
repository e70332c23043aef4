"""Plackett-Luce positions of many items from rankings of a few of them at a time.

The model: an item is drawn first with probability proportional to exp(theta), then the next from
what is left, and so on (Luce 1959; Plackett 1975). The likelihood has a finite maximum exactly
where every item can be reached from every other by "was ranked above" (Ford 1957; Hunter 2004);
items outside that part are named, never given an optimiser's leftover.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import cg

from valueflow.errors import InvalidInput
from valueflow.typing import Rankings

ItemStatus = Literal["ok", "above", "below", "unbounded", "disconnected", "unseen"]


@dataclass(frozen=True)
class PlackettLuceFit:
    """Positions of items and how far they can be trusted.

    Attributes:
        theta: positions in logits, shape (items,), mean zero over the items with status "ok"
            (over all items when there is a ridge); NaN where no finite estimate exists.
        stderr: standard error of each position in the same gauge, from the observed Fisher
            information (plus the ridge); NaN where theta is.
        status: per item "ok"; "above" / "below" (it, or the group it belongs to, only ever won /
            lost against the largest group that has a maximum, at most through others); "unbounded"
            (compared with that group only through others that won here and lost there);
            "disconnected" (no chain of comparisons leads to the most items); "unseen" (in no
            ranking). With a ridge, theta is finite for every item and the status still tells what
            the data alone can say: a flawless ranker leaves no item "ok".
        connected: whether every item is "ok".
        converged: whether the gradient fell below the tolerance.
        log_likelihood: at the maximum, over the rankings used, without the ridge term.
    """

    theta: NDArray[np.float64]
    stderr: NDArray[np.float64]
    status: tuple[ItemStatus, ...]
    connected: bool
    converged: bool
    log_likelihood: float


class _Padded(NamedTuple):
    items: NDArray[np.intp]  # (rankings, longest), padded with 0
    valid: NDArray[np.bool_]  # (rankings, longest)


def fit(
    rankings: Rankings,
    n_items: int,
    *,
    ridge: float = 0.0,
    max_iter: int = 100,
    tol: float = 1e-8,
) -> PlackettLuceFit:
    """Maximum-likelihood Plackett-Luce positions of `n_items` items.

    Args:
        rankings: item indices, best first; each a ranking of two or more distinct items. Rankings
            may have different lengths.
        n_items: number of items; indices lie in [0, n_items).
        ridge: precision of a Gaussian prior on theta, 0 for none. A prior gives every item a
            finite position, pulled towards the mean; say so where such positions are used.
        max_iter: Newton steps at most.
        tol: largest gradient entry at which the fit counts as converged.

    Raises:
        InvalidInput: an index out of range, an item twice in one ranking, fewer than two items.

    Notes:
        Ties are not modelled. Without a ridge, items outside the largest strongly connected group
        are left out of the likelihood; by Luce's axiom this is what the full likelihood tends to as
        their positions go to infinity.
    """
    padded = _pad(rankings, n_items)
    status, main = _connectivity(padded, n_items)
    kept = np.arange(n_items) if ridge > 0 else np.flatnonzero(main)
    theta, stderr = np.full(n_items, np.nan), np.full(n_items, np.nan)
    data = _restrict(padded, kept, n_items)
    if len(kept) == 0 or (ridge == 0 and len(data.items) == 0):
        return PlackettLuceFit(theta, stderr, status, False, True, 0.0)
    solution, log_likelihood, converged = _newton(data, len(kept), ridge, max_iter, tol)
    theta[kept] = solution
    stderr[kept] = _stderr(data, solution, ridge)
    connected = all(s == "ok" for s in status)
    return PlackettLuceFit(theta, stderr, status, connected, converged, log_likelihood)


def _pad(rankings: Rankings, n_items: int) -> _Padded:
    longest = max((len(r) for r in rankings), default=0)
    items = np.zeros((len(rankings), longest), dtype=np.intp)
    valid = np.zeros((len(rankings), longest), dtype=bool)
    for row, ranking in enumerate(rankings):
        if len(ranking) < 2 or len(set(ranking)) != len(ranking):
            raise InvalidInput(
                f"ranking {row}: expected two or more distinct items, got {tuple(ranking)}"
            )
        items[row, : len(ranking)] = ranking
        valid[row, : len(ranking)] = True
    if items.size and not (0 <= items.min() and items.max() < n_items):
        raise InvalidInput(
            f"rankings name items {items.min()}..{items.max()}, expected indices in 0..{n_items - 1}"
        )
    return _Padded(items, valid)


def _connectivity(
    data: _Padded, n_items: int
) -> tuple[tuple[ItemStatus, ...], NDArray[np.bool_]]:
    """Status of each item, and the mask of the largest group with a finite maximum."""
    both = data.valid[:, 1:]
    winners, losers = data.items[:, :-1][both], data.items[:, 1:][both]
    edges = sparse.coo_matrix((np.ones(len(winners)), (winners, losers)), (n_items, n_items))
    beats = edges.tocsr()
    seen = np.zeros(n_items, dtype=bool)
    seen[data.items[data.valid]] = True
    linked = seen & _largest(connected_components(beats, directed=False)[1], seen)
    group = connected_components(beats, directed=True, connection="strong")[1]
    main = linked & _largest(group, linked)
    if main.sum() < 2:
        main[:] = False
    beaten_by_main = _reachable(beats, main)
    beats_main = _reachable(beats.T.tocsr(), main)

    def status_of(item: int) -> ItemStatus:
        if not seen[item]:
            return "unseen"
        if main[item]:
            return "ok"
        if beats_main[item]:
            return "above"
        if beaten_by_main[item]:
            return "below"
        return "unbounded" if linked[item] else "disconnected"

    return tuple(status_of(i) for i in range(n_items)), main


def _largest(label: NDArray[np.int32], counted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask of the label that most of the counted items bear."""
    return label == np.bincount(label, weights=counted).argmax() if len(label) else counted


def _reachable(graph: sparse.csr_matrix, start: NDArray[np.bool_]) -> NDArray[np.bool_]:
    reached = start.copy()
    frontier = start
    while frontier.any():
        frontier = (graph.T @ frontier.astype(float) > 0) & ~reached
        reached |= frontier
    return reached


def _restrict(data: _Padded, kept: NDArray[np.intp], n_items: int) -> _Padded:
    """The rankings among `kept` items only, renumbered; rankings left with one item are dropped."""
    number = np.full(n_items, -1)
    number[kept] = np.arange(len(kept))
    items = np.where(data.valid, number[data.items], -1)
    order = np.argsort(items < 0, axis=1, kind="stable")  # valid entries first, order unchanged
    items = np.take_along_axis(items, order, axis=1)
    items = items[(items >= 0).sum(axis=1) >= 2]
    return _Padded(np.maximum(items, 0), items >= 0)


def _stages(data: _Padded, theta: NDArray[np.float64]) -> tuple[NDArray, NDArray, float]:
    """Choice probabilities of each stage of each ranking.

    Returns:
        probabilities, shape (rankings, stages, longest); chosen, shape (rankings, stages), True
        where the stage had a choice of two or more; the log-likelihood.
    """
    utility = np.where(data.valid, theta[data.items], -np.inf)
    log_total = np.logaddexp.accumulate(utility[:, ::-1], axis=1)[:, ::-1]
    chosen = data.valid[:, 1:]  # the last item of a ranking is no choice
    log_total = log_total[:, :-1]
    log_likelihood = float((utility[:, :-1] - log_total)[chosen].sum())
    left = np.triu(np.ones((utility.shape[1] - 1, utility.shape[1]), dtype=bool))
    allowed = chosen[:, :, None] & left
    exponent = np.where(allowed, utility[:, None, :] - log_total[:, :, None], -np.inf)
    return np.exp(exponent), chosen, log_likelihood


def _gradient(data: _Padded, probabilities: NDArray, chosen: NDArray, n: int) -> NDArray:
    wins = np.zeros(data.items.shape)
    wins[:, :-1] = chosen
    pull = np.where(data.valid, wins - probabilities.sum(axis=1), 0.0)
    return np.bincount(data.items.ravel(), weights=pull.ravel(), minlength=n)


def _information(data: _Padded, probabilities: NDArray, n: int) -> sparse.csr_matrix:
    """Observed Fisher information: the sum over stages of diag(p) - p p'."""
    block = -np.einsum("wji,wjk->wik", probabilities, probabilities)
    diagonal = np.arange(block.shape[1])
    block[:, diagonal, diagonal] += probabilities.sum(axis=1)
    pair = data.valid[:, :, None] & data.valid[:, None, :]
    rows = np.broadcast_to(data.items[:, :, None], pair.shape)[pair]
    columns = np.broadcast_to(data.items[:, None, :], pair.shape)[pair]
    return sparse.coo_matrix((block[pair], (rows, columns)), (n, n)).tocsr()


def _newton(
    data: _Padded, n: int, ridge: float, max_iter: int, tol: float
) -> tuple[NDArray[np.float64], float, bool]:
    theta = np.zeros(n)
    if len(data.items) == 0:
        return theta, 0.0, True
    for _ in range(max_iter):
        probabilities, chosen, log_likelihood = _stages(data, theta)
        gradient = _gradient(data, probabilities, chosen, n) - ridge * theta
        if np.abs(gradient).max() < tol:
            return theta, log_likelihood, True
        information = _information(data, probabilities, n) + ridge * sparse.identity(n)
        scale = sparse.diags(1.0 / np.maximum(information.diagonal(), 1e-12))
        step, _ = cg(information, gradient, rtol=1e-6, maxiter=10 * n, M=scale)
        theta = _line_search(data, theta, step - step.mean() * (ridge == 0), gradient, ridge)
    return theta, _stages(data, theta)[2], False


def _line_search(
    data: _Padded, theta: NDArray, step: NDArray, gradient: NDArray, ridge: float
) -> NDArray[np.float64]:
    def objective(x: NDArray) -> float:
        return _stages(data, x)[2] - 0.5 * ridge * float(x @ x)

    start, slope = objective(theta), float(gradient @ step)
    for shrink in 0.5 ** np.arange(30):
        # The rounding error of a sum of many logs must not stop the last, tiny steps.
        if objective(theta + shrink * step) >= start + 1e-4 * shrink * slope - 1e-10 * abs(start):
            return theta + shrink * step
    return theta


def _stderr(data: _Padded, theta: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    n = len(theta)
    probabilities, _, _ = _stages(data, theta) if len(data.items) else (np.zeros((0, 0, 0)), 0, 0)
    information = _information(data, probabilities, n).toarray() if len(data.items) else np.zeros((n, n))
    if ridge > 0:
        covariance = np.linalg.inv(information + ridge * np.eye(n))
    else:
        # Shifting all positions changes nothing: adding that null direction makes the matrix
        # invertible, taking it out again leaves the covariance of mean-zero positions.
        covariance = np.linalg.inv(information + 1.0 / n) - 1.0 / n
    return np.sqrt(np.maximum(np.diag(covariance), 0.0))
