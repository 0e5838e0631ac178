"""Tables as the book prints them: the paper's numbers beside ours, with what each of ours cost."""

import math
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from david.runs.methods import REAL, method
from david.runs.provenance import percent
from david.runs.records import summary


def paper_tables() -> pd.DataFrame:
    """The numbers of the paper's Tables 1 to 4.

    Returns:
        columns table, row, dataset, ipc (NaN for full data), mean and std (percent; in Table 3 hours), quoted_from
        ("VDSD" where the paper copied the number, NaN otherwise).
    """
    return pd.read_csv(Path(__file__).with_name("paper_tables.csv"))


def paper_value(row: str | None, dataset: str, ipc: int) -> str:
    """What Table 1 or 2 of the paper prints for a method, dataset and IPC, or "" where it has no such number."""
    table = paper_tables()
    found = table[(table["row"] == row) & (table["dataset"] == dataset) & table["table"].isin([1, 2])]
    found = found[(found["ipc"] == ipc) | found["ipc"].isna()]
    return "" if found.empty else f"{found['mean'].iloc[0]} ± {found['std'].iloc[0]}"


def leader(table: pd.DataFrame, aside: Iterable[str] = ()):
    """The row of a ``summary`` whose interval, mean ± std, lies above all others'; real data and ``aside`` apart."""
    ranked = table[~table["method"].isin([*REAL, *aside])].sort_values("mean", ascending=False)
    if len(ranked) < 2:
        return None
    first, *others = ranked.itertuples()
    return first if all(first.mean - first.std > row.mean + row.std for row in others) else None


def accuracy_table(
    records: Iterable[dict], beside: str | None = None, metric: str = "top1", aside: Iterable[str] = ()
) -> pd.DataFrame:
    """Accuracies and costs, a row for each method and IPC, bold where no other method's interval at that IPC reaches.

    Args:
        records: of one dataset.
        beside: the paper's dataset to show; its numbers are for that dataset only, not for ours.
        metric: "top1" or "top5".
        aside: methods that do not compete for the bold, such as one that was chosen on test data.

    Returns:
        strings of HTML for ``show``, indexed by method title, IPC by IPC.
    """
    table = summary(records, metric=metric).sort_values("ipc", kind="stable")
    bold = [leader(group, aside) for _, group in table.groupby("ipc")]
    bold = {(row.method, row.ipc) for row in bold if row is not None}
    rows, index = [], []
    for row in table.itertuples():
        found = method(row.method)
        ours = percent(row.mean, row.std)
        cells = {"IPC": row.ipc or "all"}
        if beside is not None:
            # What the paper quotes for the heavy track is VDSD on MTT (its section 4.4.2).
            other = row.method == "vdsd" and beside in ("SSv2", "K400")
            cells[f"paper, {beside}, %"] = "" if other else paper_value(found.paper, beside, row.ipc)
        cells |= {
            f"ours, {row.dataset}, %": f"<b>{ours}</b>" if (row.method, row.ipc) in bold else ours,
            "n": f"{row.seeds} × {row.students}",
            "clips / class": f"{row.clips:.1f}",
            "stored MiB": f"{row.stored_bytes / 2**20:.2f}",
            "seconds": "" if math.isnan(row.seconds) else f"{row.seconds:.0f}",
            "peak MiB": "" if math.isnan(row.peak_bytes) else f"{row.peak_bytes / 2**20:.0f}",
        }
        rows.append({name: str(value) for name, value in cells.items()})
        index.append(found.title)
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
        if seeds := sorted(sides[0].keys() & sides[1].keys()):
            pairs = [[side[seed] for seed in seeds] for side in sides]
            one, other = (summary(side).iloc[0] for side in pairs)
            apart = pd.Series([summary([b])["mean"][0] - summary([a])["mean"][0] for a, b in zip(*pairs)])
            lengths = [[length for record in side for length in record["frames_per_segment"]] for side in pairs]
            spread, error = f" ± {100 * apart.std():.1f}" if len(seeds) > 1 else "", apart.sem()
            known = {setting: pair for setting, pair in changes.items() if setting in pairs[0][0]["settings"]}
            rows.append(
                {
                    "dataset": dataset,
                    "method": name,
                    "ipc": ipc,
                    "n": len(seeds),
                    names[0]: percent(one["mean"], one["std"]),
                    names[1]: percent(other["mean"], other["std"]),
                    "difference": f"{100 * apart.mean():+.1f}{spread}",
                    "error": 100 * error,
                    "sure": abs(apart.mean()) > 2 * error,  # of one pair nothing is: its error is not a number
                    "within": abs(apart.mean()) <= max(one["std"], other["std"]),
                    "policy": sum(a == b for a, b in zip(*lengths)) / len(lengths[0]),
                    "changed": ", ".join(f"{setting} {a} to {b}" for setting, (a, b) in known.items()),
                }
            )
    return pd.DataFrame(rows)


def show_pairs(table: pd.DataFrame, index: str, without: Iterable[str]):
    """What ``side_by_side`` returned for display, named by its column ``index``; see ``show``."""
    titles = table["method"].map(lambda name: method(name).title)
    shown = table.assign(method=titles, policy=table["policy"].map("{:.0%}".format)).set_index(index).rename_axis(None)
    return show(
        shown.drop(columns=["error", "sure", "within", *without]).rename(columns={"policy": "L kept", "ipc": "IPC"})
    )


def verdict(table: pd.DataFrame) -> str:
    """A ``summary`` of one IPC in words: who leads, who is as good, and who is not above Random in the mean."""
    lead, *rest = table.sort_values("mean", ascending=False).itertuples()
    if not rest:
        return f"{method(lead.method).title} has {percent(lead.mean, lead.std)} %"
    near = [method(row.method).title for row in rest if not row.mean + row.std < lead.mean - lead.std]
    said = f"{method(lead.method).title} leads with {percent(lead.mean, lead.std)} %"
    said += (
        f" (intervals that overlap its own: {', '.join(near)})" if near else " and no other interval reaches its own"
    )
    plain = next((row for row in rest if row.method == "random"), None)
    if plain is None:
        return said
    below = [method(row.method).title for row in rest if row.method != "random" and row.mean <= plain.mean]
    said += f"; Random has {percent(plain.mean, plain.std)} %"
    return said + (f"; not above it in the mean: {', '.join(below)}" if below else "")


def ranked_actions(record: dict) -> list[list[int]]:
    """Of every class the L that a grid search tried, the largest reward first.

    Args:
        record: of method "david:grid", whose episodes try each L once for all classes.
    """
    episodes = record["search"]["episodes"]
    orders = [sorted(episodes, key=lambda e: -e["reward"][c]) for c in range(len(record["classes"]))]
    return [[episode["frames_per_segment"][c] for episode in order] for c, order in enumerate(orders)]


def show(table: pd.DataFrame):
    """A table of strings for display, as IPython.display.HTML; numbers do not break over lines in a narrow page."""
    from IPython.display import HTML  # only notebooks need IPython

    # Spaces inside a tag, as in a link, stay what they are.
    kept = table.map(lambda cell: re.sub(r" (?![^<>]*>)", "\u00a0", str(cell))).rename(
        lambda name: name.replace(" = ", "\u00a0=\u00a0")
    )
    return HTML(kept.to_html(escape=False, border=0))
