"""Judge rewards: do they order the temporal resolutions of a class as students do?

Students' accuracies of a class at every L, from records of fixed L, are the yardstick; scores of the same L are what
``benchmarks/scores.py`` wrote. All of it is on training groups that were held out.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from david.support.files import read_json
from davidbook.differences import best_of_others

# name -> (field of a score, sign that makes more be better)
REWARDS = {
    "Eq. 1": ("distance", -1),
    "Eq. 1, unbiased in n": ("unbiased", -1),
    "teacher's likelihood": ("likelihood", 1),
    "a student in the loop": ("student", 1),
}


def read_scores(folder: str | Path, dataset: str) -> list[dict]:
    """The scores of a dataset, one dictionary a seed."""
    return [read_json(path) for path in sorted(Path(folder).glob(f"scores-{dataset}-seed*.json"))]


def by_length(records: Iterable[dict]) -> dict[int, pd.DataFrame]:
    """Accuracies in percent: seed -> rows L, ascending, columns classes; a seed that lacks an L is left out.

    Args:
        records: of one method at every fixed L.
    """
    found: dict[int, dict[int, list[float]]] = {}
    for record in records:
        own = 100 * np.mean([student["per_class"] for student in record["students"]], axis=0)
        found.setdefault(record["seed"], {})[record["frames_per_segment"][0]] = own
    most = max(map(len, found.values()), default=0)
    whole = {seed: pd.DataFrame(own).T.sort_index() for seed, own in found.items() if len(own) == most}
    return dict(sorted(whole.items()))


def others(accuracies: dict[int, pd.DataFrame], seed: int) -> pd.DataFrame:
    """The mean over the seeds other than this one."""
    return sum(own for other, own in accuracies.items() if other != seed) / sum(other != seed for other in accuracies)


def under(accuracies: pd.DataFrame, policy: Iterable[int]) -> float:
    """The mean over classes at the L that a policy gives each."""
    return float(np.mean([accuracies.loc[length, c] for c, length in zip(accuracies.columns, policy)]))


def ceiling(accuracies: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """What a perfect reward could bring: by seed, "best L of each class" and "best single L", points.

    Both are chosen on the other seeds.
    """
    single = best_of_others(pd.DataFrame({seed: own.mean(axis=1) for seed, own in accuracies.items()}).T)
    each = {seed: under(own, others(accuracies, seed).idxmax()) for seed, own in accuracies.items()}
    return pd.DataFrame({"best L of each class": each, "best single L": single})


def judged(scores: Iterable[dict], accuracies: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """How well the rewards of every seed agree with the students of the *other* seeds.

    Returns:
        rows seed, iteration, reward, "rank correlation" (Spearman's, the mean of classes), "policy" (points of the
        policy that the reward picks) and "best single L" (points of the best of the fixed L, both on other seeds).
    """
    rows = []
    for score in scores:
        if score["seed"] not in accuracies:
            continue
        students = others(accuracies, score["seed"])
        for iteration in sorted({row["iteration"] for row in score["rows"]}):
            own = {row["L"]: row for row in score["rows"] if row["iteration"] == iteration}
            for reward, (name, sign) in REWARDS.items():
                opinion = sign * pd.DataFrame({length: row[name] for length, row in own.items()}).T.sort_index()
                ranks = opinion.rank().corrwith(students.rank())  # NaN where students see no difference
                rows.append(
                    {
                        "seed": score["seed"],
                        "iteration": iteration,
                        "reward": reward,
                        "rank correlation": ranks.mean(),
                        "policy": under(students, opinion.idxmax()),
                        "best single L": students.mean(axis=1).max(),
                    }
                )
    return pd.DataFrame(rows)
