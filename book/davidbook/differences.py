"""Say whether a difference is real: every rule that the book judges by stands here, and nowhere else.

Records that share seeds are compared by ``paired`` and, several at once, by ``comparisons``. Where only mean and
deviation are known, as in the paper's tables, ``intervals`` decides; where a standard error is, ``beyond_chance``.
"""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.stats import t as student

LEVEL = 0.95


def intervals(left: tuple[float, float], right: tuple[float, float]) -> str:
    """How two intervals, mean ± standard deviation, lie to each other.

    Returns:
        "above" or "below", where left's lies wholly on that side of right's; "overlap", where they touch; "unknown",
        where one has no mean or, as a single seed, no deviation.
    """
    (mean, std), (other, reach) = left, right
    if math.isnan(mean + std + other + reach):
        return "unknown"
    return "above" if mean - std > other + reach else "below" if mean + std < other - reach else "overlap"


def beyond_chance(mean, error):
    """Whether means, numbers or Series, are more than two standard errors from 0; never without an error (NaN)."""
    return abs(mean) > 2 * error


def top1(records: Iterable[dict]) -> pd.Series:
    """Top-1 accuracy in percent by seed, the mean of a seed's students."""
    return pd.Series({r["seed"]: 100 * np.mean([s["top1"] for s in r["students"]]) for r in records}).sort_index()


def paired(left: pd.Series, right: pd.Series) -> dict[str, float]:
    """What ``left`` has more than ``right``, over the seeds that both have.

    Returns:
        "n" (seeds), "mean", "low" and "high" (ends of the 95 % interval of the mean, Student's t with n - 1 degrees of
        freedom; infinite for one seed) and "p" (two-sided; 1 for one seed).
    """
    gains = (left - right).dropna()
    count, mean = len(gains), gains.mean()
    if count < 2:
        return {"n": count, "mean": mean, "low": -np.inf, "high": np.inf, "p": 1.0}
    error = gains.sem()
    reach = student.ppf((1 + LEVEL) / 2, count - 1) * error
    p = 2 * student.sf(abs(mean) / error, count - 1) if error else float(mean == 0)
    return {"n": count, "mean": mean, "low": mean - reach, "high": mean + reach, "p": p}


def holm(p: pd.Series) -> pd.Series:
    """p-values made larger for being several (Holm 1979): below 0.05 is told apart, whatever else is compared."""
    order = p.sort_values()
    scaled = order * np.arange(len(order), 0, -1)
    return scaled.cummax().clip(upper=1).reindex(p.index)


def comparisons(pairs: dict[tuple, tuple[pd.Series, pd.Series]], names: list[str]) -> pd.DataFrame:
    """One row of ``paired`` for each pair, with "told apart": whether Holm's p over all of them is below 0.05.

    The index's levels, called ``names``, are the keys of ``pairs``.
    """
    rows = pd.DataFrame([paired(*pair) for pair in pairs.values()])
    rows.index = pd.MultiIndex.from_tuples(pairs, names=names)
    return rows.assign(**{"told apart": holm(rows["p"]) < 1 - LEVEL})


def interval(row) -> str:
    """The interval of a row of ``comparisons``, "+1.0 to +2.5"; of one seed there is none."""
    return f"{row['low']:+.1f} to {row['high']:+.1f}" if row["n"] > 1 else "one seed"


def best_of_others(table: pd.DataFrame) -> pd.Series:
    """Of every seed the value in the column whose mean over the *other* seeds is largest.

    So a best row is not chosen on what it is compared on; with one seed, the largest of its own.

    Args:
        table: seeds by rivals; a seed that lacks one of them is left out.
    """
    table = table.dropna()
    others = (table.sum() - table) if len(table) > 1 else table
    return pd.Series({seed: table.loc[seed, others.loc[seed].idxmax()] for seed in table.index}, dtype=float)


def shown(gains: pd.DataFrame) -> pd.DataFrame:
    """What ``comparisons`` found, as a table for readers."""
    return pd.DataFrame(
        {
            "gain, points": gains["mean"].map("{:+.1f}".format),
            "95 % interval": gains.apply(interval, axis=1),
            "n": gains["n"].map("{:.0f}".format),
            "told apart": gains["told apart"].map({True: "yes", False: "no"}),
        }
    )


def said(gains: pd.DataFrame, *which, brief: bool = False) -> str:
    """A comparison of every dataset in words.

    Args:
        gains: of ``comparisons``, the datasets first in its index.
        which: the other levels of the index.
        brief: the points alone, of more than one seed, and whether they are told apart.
    """
    own = [(key[0], row) for key, row in gains.iterrows() if key[1:] == which]
    apart = {True: "", False: ", not told apart"}
    if brief:
        told = {True: "", False: " (not told apart)"}
        own = [f"{row['mean']:+.1f} on {d}{told[row['told apart']]}" for d, row in own if row["n"] > 1]
        return ", ".join(own) or "not run yet"
    return (
        "; ".join(
            f"{dataset} {row['mean']:+.1f} ({interval(row)}, n = {row['n']:.0f}{apart[row['told apart']]})"
            for dataset, row in own
        )
        or "not run yet"
    )
