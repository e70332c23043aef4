"""Summaries of comparisons that never were, with numbers easy to follow."""

from valueflow.study.compare_summary import Estimate, Reached, Summary


def est(mean, half=0.5):
    return Estimate(mean, mean - half, mean + half, 20)


def reached(low, high, damage=(0.3, 0.4)):
    return Reached(
        lowest=est(low),
        highest=est(high),
        range=est(high - low),
        up=est(high),
        down=est(-low),
        asymmetry=est(high + low),
        kept=est(high - low),
        damage=damage,
        within=max(damage) <= 0.7,
        degenerate=(0.0, 0.1),
        words=(30.0, 31.0),
        expected=(low, high),
        targets=(),
        error=0.5,
        error_all=1.5,
    )


def summary(value, shift=0.0):
    ways = {
        "activation": reached(-4.0 + shift, 3.0 + shift, (0.3, 0.9)),
        "levels": reached(-1.0 + shift, 2.0 + shift),
        "texts": reached(-0.5 + shift, 1 + shift),
        "both": reached(-5 + shift, 4.5 + shift),
    }
    differences = {
        "activation - levels": est(4.0),
        "activation - texts": est(5.5),
        "both - activation": est(2.5),
    }
    return Summary(value, est(0.2 + shift), ways, "levels", differences, {}, {})
