"""How much a class needs motion: Delta (Eq. 6), the TR subset, and the groups of Fig. 3."""

import math

import pandas as pd


def delta(full: dict, still: dict) -> pd.DataFrame:
    """Eq. 6 for every class: accuracy after training on videos less accuracy after training on single frames.

    Both networks of a pair have the same seed, so the same first weights and the same videos in every batch, and are
    tested on the same videos.

    Args:
        full: record of method "full".
        still: record of method "still" with the same data, settings and seeds.

    Returns:
        a row a class, in the order of the classes: full and still (mean accuracies), delta, error (standard error of
        delta over the pairs; NaN for one pair) and n (pairs).

    Raises:
        ValueError: the records are not a pair.
    """
    for name in ("dataset", "fingerprint", "classes", "settings"):
        if full[name] != still[name]:
            raise ValueError(f"Delta compares records of the same {name}, not {full[name]} and {still[name]}")
    pairs = list(zip(full["students"], still["students"], strict=True))
    if any(a["seed"] != b["seed"] for a, b in pairs):
        raise ValueError("Delta compares networks of the same seeds")
    a, b = (pd.DataFrame([pair[side]["per_class"] for pair in pairs], columns=full["classes"]) for side in (0, 1))
    error = (a - b).std() / math.sqrt(len(pairs))
    return pd.DataFrame({"full": a.mean(), "still": b.mean(), "delta": (a - b).mean(), "error": error, "n": len(pairs)})


def most_dynamic(delta: pd.Series, k: int) -> list[str]:
    """The k classes of largest Delta, in the order of the classes; of two equal ones the first (section 4.1).

    Raises:
        ValueError: k is not between 1 and the number of classes.
    """
    if not 1 <= k <= len(delta):
        raise ValueError(f"k={k}: choose 1 to {len(delta)}, the number of classes")
    chosen = set(delta.sort_values(ascending=False, kind="stable").index[:k])
    return [name for name in delta.index if name in chosen]


def delta_groups(delta: pd.Series, groups: int = 11) -> pd.Series:
    """The group of every class, int, 0 the most static (Fig. 3): as equal in size as can be, by rank of Delta.

    How the paper draws its borders it does not say. With fewer classes than groups, every class is one.
    """
    order = delta.rank(method="first").astype(int) - 1
    groups = min(groups, len(delta))
    return order * groups // len(delta)


def trend(accuracy: pd.DataFrame, delta: pd.Series) -> pd.DataFrame:
    """How a method's accuracy on a class goes with the class's Delta (Fig. 1): least squares, a line a method.

    Args:
        accuracy: what ``records.by_class`` returns, of two classes or more.
        delta: of every class.

    Returns:
        a row a method: most_static and most_dynamic, the line's values at the smallest and the largest Delta; change,
        the difference of the two; and error, the standard error of change (NaN for two classes).
    """
    rows = {}
    for name, own in accuracy.groupby("method", sort=False):
        y = own.groupby("class")["accuracy"].mean()
        x = delta.loc[y.index]
        spread = ((x - x.mean()) ** 2).sum()
        slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
        rest = y - y.mean() - slope * (x - x.mean())
        error = math.sqrt((rest**2).sum() / (len(x) - 2) / spread) if len(x) > 2 else math.nan
        ends = [y.mean() + slope * (end - x.mean()) for end in (delta.min(), delta.max())]
        width = delta.max() - delta.min()
        rows[name] = {"most_static": ends[0], "most_dynamic": ends[1], "change": slope * width, "error": error * width}
    return pd.DataFrame(rows).T
