"""One progress bar for the project: tqdm in a terminal or a live notebook, silent while a page is built."""

import os
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # without ipywidgets tqdm falls back to text: no news for a page
    from tqdm.auto import tqdm


def track(iterable=None, *, total: int | None = None, desc: str | None = None, unit: str = "it") -> tqdm:
    """Wrap `iterable` in a progress bar, or make one to move by hand: `with track(total=9) as bar: ...`.

    The environment variable `DAVID_PROGRESS=0` silences every bar. (tqdm's own `TQDM_DISABLE` does not reach
    its notebook bar.)
    """
    silent = os.environ.get("DAVID_PROGRESS") == "0"
    scale = unit == "B"  # 1.2GB, not 1200000000B
    return tqdm(iterable, total=total, desc=desc, unit=unit, unit_scale=scale, disable=silent)


def about(seconds: float) -> str:
    """A time to go in words: "about 40 s", "about 12 min", "about 2.5 h"."""
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
