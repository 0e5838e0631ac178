"""``python -m david.run``: the records of a table, on this machine, under ``torchrun``, or on a Dask cluster."""

import argparse
import ast
import sys
from contextlib import nullcontext
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from david import sharding
from david.experiment import Experiment
from david.methods import method
from david.presets import PRESETS, preset
from david.records import Store


def assignment(text: str) -> tuple[str, object]:
    """``name=value`` as (name, value), the value a Python literal or else a string.

    Raises:
        argparse.ArgumentTypeError: no ``=``.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; see ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m david.run", description=__doc__)
    add, many = parser.add_argument, {"nargs": "+", "action": "extend"}  # --seed 0 1 is --seed 0 --seed 1
    add("--dataset", default="motions", help="name of a reader (default: %(default)s)")
    add("--root", type=Path, help="the dataset's folder; motions needs none")
    add("--option", type=assignment, action="append", default=[], metavar="NAME=VALUE", help="of the reader: split=2")
    add("--method", **many, required=True, metavar="METHOD", help="rows of the table: random dm:4 david ...")
    add("--ipc", **many, type=int, help="stored videos a class (default: 1)")
    add("--seed", **many, type=int, help="of the distillation (default: 0)")
    add("--preset", choices=PRESETS, default="demo", help="settings to start from (default: %(default)s)")
    add("--set", type=assignment, **many, default=[], metavar="NAME=VALUE", help="changes to the preset: size=64")
    add("--runs", type=Path, default=Path("runs"), help="folder of the records (default: %(default)s)")
    add("--published", type=Path, help="folder of records to read as well")
    add("--sweep", action="store_true", help="take the sets of dm and david out of one run over all L")
    add("--device", help="cpu or cuda (default: cuda if there is a GPU)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, help="processes of this machine, a record each; -1: one a core")
    where.add_argument("--dask", metavar="ADDRESS", help="of a Dask scheduler, whose workers make a record each")
    return parser.parse_args(arguments)


def cluster(address: str | None):
    """A client of the Dask scheduler at ``address``, to be closed by ``with``; None without an address."""
    if address is None:
        return nullcontext()
    from dask.distributed import Client  # optional: the extra "cluster"

    return Client(address)


def main(arguments: list[str] | None = None) -> int:
    """Make the records that are missing, and print a line for each."""
    options = parse(arguments)
    settings = preset(options.preset, **dict(options.set))
    store = Store(options.runs, options.published)
    with sharding.group(options.device) as device, cluster(options.dask) as client:
        if sharding.size() > 1 and (options.jobs or client):
            raise ValueError("torchrun spreads one run, --jobs and --dask a table: choose one of them")
        experiment = Experiment(
            options.dataset, settings, store, root=options.root, options=dict(options.option), device=device,
            swept=options.sweep,
        )  # fmt: skip
        alone = [name for name in options.method if not method(name).sharded]
        if sharding.size() > 1 and sharding.rank() == 0 and alone:
            print(f"not sharded, so made by the first rank while the others wait: {', '.join(alone)}", flush=True)
        records = experiment.table(
            options.method, ipcs=options.ipc or [1], seeds=options.seed or [0], jobs=options.jobs, client=client
        )
        if sharding.rank() == 0:
            for made in records:
                top1 = [student["top1"] for student in made["students"]]
                run = f"{made['method']}, IPC {made['ipc']}, seed {made['seed']}"
                print(f"{run}: top-1 {100 * sum(top1) / len(top1):.1f} %, {made['path']}")
    return 0


if __name__ == "__main__":
    sys.exit(record(main)())  # under torchrun, its last lines are then the error of the rank that failed first
