"""Make the book's tables: the paper's numbers beside ours, with what each of ours cost."""

import math
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path

import pandas as pd

from david.runs.methods import REAL, method
from david.runs.records import percent, summary
from davidbook.differences import beyond_chance, intervals, top1


def paper_tables() -> pd.DataFrame:
    """The numbers of the paper's Tables 1 to 4.

    Returns:
        columns table, row, dataset, ipc (NaN for full data), mean and std (percent; in Table 3 hours), quoted_from
        ("VDSD" where the paper copied the number, NaN otherwise).
    """
    return pd.read_csv(Path(__file__).with_name("paper_tables.csv"))


def paper_value(row: str | None, dataset: str, ipc: int) -> str:
    """What Table 1 or 2 of the paper prints for a method, dataset and IPC, or "" where it has no such number."""
    found = paper_tables().query("row == @row and dataset == @dataset and table <= 2 and (ipc == @ipc or ipc != ipc)")
    return "" if found.empty else f"{found['mean'].iloc[0]} ± {found['std'].iloc[0]}"


def leader(table: pd.DataFrame, aside: Iterable[str] = ()):
    """The row of a ``summary`` whose interval, mean ± std, lies above all others'; real data and ``aside`` apart."""
    ranked = table[~table["method"].isin([*REAL, *aside])].sort_values("mean", ascending=False)
    first, *others = ranked.itertuples() if len(ranked) > 1 else [None]
    return first if all(intervals((first.mean, first.std), (row.mean, row.std)) == "above" for row in others) else None


def verdict(table: pd.DataFrame) -> str:
    """A ``summary`` of one IPC in words: who leads, who is as good, and who is not above Random in the mean."""
    lead, *rest = table.sort_values("mean", ascending=False).itertuples()
    reaches = f"{percent(lead.mean, lead.std)} %"
    if not rest:
        return f"{method(lead.method).title} has {reaches}"
    near = [row for row in rest if intervals((lead.mean, lead.std), (row.mean, row.std)) != "above"]
    overlap = f" (intervals that overlap its own: {_titles(near)})"
    said = f"{method(lead.method).title} leads with {reaches}"
    said += overlap if near else " and no other interval reaches its own"
    for plain in (row for row in rest if row.method == "random"):
        below = [row for row in rest if row.method != "random" and row.mean <= plain.mean]
        said += f"; Random has {percent(plain.mean, plain.std)} %"
        said += f"; not above it in the mean: {_titles(below)}" if below else ""
    return said


def _titles(rows) -> str:
    return ", ".join(method(row.method).title for row in rows)


def accuracy_table(
    records: Iterable[dict], beside: str | None = None, metric: str = "top1", aside: Iterable[str] = ()
) -> pd.DataFrame:
    """Accuracies and costs, a row for each method and IPC, bold where no other method's interval at that IPC reaches.

    Args:
        records: of one dataset.
        beside: the paper's dataset to show; its numbers are for that dataset only, not for ours.
        metric: "top1" or "top5".
        aside: methods that do not compete for the bold, such as one that was chosen on test data.
    """
    table = summary(records, metric=metric).sort_values("ipc", kind="stable")
    bold = {row.Index for _, group in table.groupby("ipc") if (row := leader(group, aside))}
    rows, index = [], []
    for row in table.itertuples():
        ours, cells = percent(row.mean, row.std), {"IPC": str(row.ipc or "all")}
        if beside is not None:
            # What the paper quotes for the heavy track is VDSD on MTT (its section 4.4.2).
            other = row.method == "vdsd" and beside in ("SSv2", "K400")
            paper = "" if other else paper_value(method(row.method).paper, beside, row.ipc)
            cells[f"paper, {escape(beside)}, %"] = paper
        rows.append(
            cells
            | {
                f"ours, {escape(row.dataset)}, %": f"<b>{ours}</b>" if row.Index in bold else ours,
                "n": f"{row.seeds} × {row.students}",
                "clips / class": f"{row.clips:.1f}",
                "stored MiB": f"{row.stored_bytes / 2**20:.2f}",
                "seconds": "" if math.isnan(row.seconds) else f"{row.seconds:.0f}",
                "peak MiB": "" if math.isnan(row.peak_bytes) else f"{row.peak_bytes / 2**20:.0f}",
            }
        )
        index.append(method(row.method).title)
    return pd.DataFrame(rows, index=index).rename_axis("method", axis=1)


def side_by_side(records: Iterable[dict], changes: dict[str, tuple], names: tuple[str, str]) -> pd.DataFrame:
    """Records equal but for some settings: a row for each dataset, method and IPC, over the seeds that pair up.

    Args:
        changes: each setting's first and second value, such as {"distill_precision": ("float32", "bfloat16")}; a
            method is compared in those of them that decide its result.
        names: of the columns of the first and of the second.

    Returns:
        columns dataset, method, ipc, n (pairs), the two of ``names`` (percent, mean ± std over seeds), difference
        (points of top-1, the second minus the first, mean ± std over the pairs), error (standard error of its mean, in
        points), within (whether its mean is at most the larger deviation over seeds), sure (whether it is more than two
        standard errors), policy (the share of classes whose L is the same), changed (in words).
    """
    found: dict[tuple, tuple[dict, dict]] = {}
    for record in records:
        settings = record["settings"]
        values = [(settings[name], pair) for name, pair in changes.items() if name in settings]
        rest = str({name: value for name, value in settings.items() if name not in changes})
        key = (*(record[field] for field in ("dataset", "method", "ipc")), rest, record["fingerprint"])
        for side in (0, 1):
            if values and all(value == pair[side] for value, pair in values):
                found.setdefault(key, ({}, {}))[side][record["seed"]] = record
    rows = []
    for (dataset, name, ipc, *_), sides in found.items():
        one, other = (top1(side.values()) for side in sides)
        gains = (other - one).dropna()
        pairs = [[side[seed] for seed in gains.index] for side in sides]
        if not pairs[0]:
            continue
        means, stds = zip(*(summary(side)[["mean", "std"]].iloc[0] for side in pairs))
        lengths = [[length for record in side for length in record["frames_per_segment"]] for side in pairs]
        known = {setting: pair for setting, pair in changes.items() if setting in pairs[0][0]["settings"]}
        rows.append(
            {
                "dataset": dataset,
                "method": name,
                "ipc": ipc,
                "n": len(gains),
                **{column: percent(mean, std) for column, mean, std in zip(names, means, stds)},
                "difference": f"{gains.mean():+.1f}" + (f" ± {gains.std():.1f}" if len(gains) > 1 else ""),
                "error": gains.sem(),
                "sure": beyond_chance(gains.mean(), gains.sem()),
                "within": abs(gains.mean()) <= 100 * max(stds),
                "policy": sum(a == b for a, b in zip(*lengths)) / len(lengths[0]),
                "changed": ", ".join(f"{setting} {a} to {b}" for setting, (a, b) in known.items()),
            }
        )
    return pd.DataFrame(rows)


def show_pairs(table: pd.DataFrame, index: str, without: Iterable[str]):
    """What ``side_by_side`` returned for display, named by its column ``index``; see ``show``."""
    titles = table["method"].map(lambda name: method(name).title)
    shown = table.assign(method=titles, policy=table["policy"].map("{:.0%}".format)).set_index(index).rename_axis(None)
    shown = shown.drop(columns=["error", "sure", "within", *without])
    return show(shown.rename(columns={"policy": "L kept", "ipc": "IPC"}))


def verbatim(name: str) -> str:
    """A name for Markdown: as it is where nothing in it could be markup or a formula, as code otherwise."""
    if re.fullmatch(r"[^\W_]+(?:[ ._-][^\W_]+)*", name):
        return name
    fence = "`" * (1 + max(map(len, re.findall("`*", name))))
    return f"{fence} {name} {fence}".replace("\n", " ")  # Markdown takes one space off either end


def show(table: pd.DataFrame):
    """A table of strings for display, as IPython.display.HTML; numbers do not break over lines in a narrow page."""
    from IPython.display import HTML  # only notebooks need IPython

    # Spaces inside a tag, as in a link, stay what they are.
    kept = table.map(lambda cell: re.sub(r" (?![^<>]*>)", "\u00a0", str(cell))).rename(
        lambda name: str(name).replace(" = ", "\u00a0=\u00a0")
    )
    return HTML(kept.to_html(escape=False, border=0))


def means(table: pd.DataFrame, rows: list[str]) -> pd.DataFrame:
    """Accuracies as text, "mean ± std (n)": rows by datasets; "not run yet" where there is none.

    Args:
        table: columns mean, std and n by (dataset, row).
        rows: their order.
    """

    def told(row) -> str:
        spread = f" ± {row['std']:.1f}" if row["n"] > 1 else ""
        return f"{row['mean']:.1f}{spread} ({row['n']:.0f})"

    return table.apply(told, axis=1).unstack(0).reindex(rows).fillna("not run yet")
