"""The command ``david``, or ``python -m david``: make the records of a table, fetch and decode datasets, reproduce.

A table is made on this machine, under ``torchrun``, or on a Dask cluster.
"""

import argparse
import ast
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

from david.data.readers import READERS
from david.runs import sharding
from david.runs.experiment import Experiment
from david.runs.methods import method
from david.runs.records import Store
from david.runs.settings import PRESETS, preset


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
    parser = argparse.ArgumentParser(prog="david run", description=run.__doc__)
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


def run(arguments: list[str] | None = None) -> int:
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


# subcommand: (its module and function, which takes arguments; what it does)
COMMANDS = {
    "run": ("runs.command.run", "make the records of a table: on this machine, under torchrun, or on a Dask cluster"),
    "datasets": ("runs.command.datasets", "list the datasets that can be read"),
    "download": ("data.download.main", "fetch, verify and unpack a dataset, or say how it is had"),
    "cache": ("data.cache.main", "decode a dataset before it is needed"),
    "reproduce": ("runs.reproduce.main", "compute the published records anew and compare"),
}


def datasets(arguments: list[str] | None = None) -> int:
    """Print every dataset's name and what it is."""
    argparse.ArgumentParser(prog="david datasets", description="List the datasets.").parse_args(arguments)
    for name, (module, function) in READERS.items():
        reader = getattr(import_module(f"david.data.readers.{module}"), function)
        print(f"{name:12} {reader.__doc__.strip().partition(chr(10))[0]}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """One of ``COMMANDS``."""
    known = "\n".join(f"  {name:10} {what}" for name, (_, what) in COMMANDS.items())
    parser = argparse.ArgumentParser(prog="david", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description = __doc__.partition("\n")[0]
    parser.epilog = f"commands:\n{known}\n\ndavid COMMAND --help says more"
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    options = parser.parse_args(arguments)
    module, _, function = COMMANDS[options.command][0].rpartition(".")
    return getattr(import_module(f"david.{module}"), function)(options.rest) or 0
