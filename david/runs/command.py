"""The command ``david``, or ``python -m david``: make the records of a table, fetch and decode datasets, reproduce.

A table is made on this machine, under ``torchrun``, or on a Dask cluster.
"""

import argparse
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import torch

from david.data.cache import decoded, sampling_of
from david.data.readers import READERS, load
from david.runs import sharding
from david.runs.experiment import Experiment
from david.runs.methods import method
from david.runs.parameters import changed, known_dataset, known_method, number, there, writable
from david.runs.records import Store
from david.runs.settings import PRESETS
from david.support.values import argument, assignment, jobs, known_device


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line, every value judged; see ``--help``. ``settings`` are those of ``--preset`` and ``--set``."""
    parser = argparse.ArgumentParser(prog="david run", description=run.__doc__)
    add, many = parser.add_argument, {"nargs": "+", "action": "extend"}  # --seed 0 1 is --seed 0 --seed 1
    reader = "name of a reader (default: %(default)s)"
    add("--dataset", type=argument(known_dataset, "motions"), default="motions", help=reader)
    add("--root", type=argument(there, "/data/UCF-101", Path), help="the dataset's folder; motions needs none")
    add("--option", type=assignment, action="append", default=[], metavar="NAME=VALUE", help="of the reader: split=2")
    rows = "rows of the table: random dm:4 david ..."
    add("--method", **many, type=argument(known_method, "david"), required=True, metavar="METHOD", help=rows)
    add("--ipc", **many, type=argument(lambda ipc: number(ipc, 1), 1, int), help="stored videos a class (default: 1)")
    add("--seed", **many, type=argument(number, 0, int), help="of the distillation (default: 0)")
    add("--preset", choices=PRESETS, default="demo", help="settings to start from (default: %(default)s)")
    add("--set", type=assignment, **many, default=[], metavar="NAME=VALUE", help="changes to the preset: size=64")
    runs = "folder of the records (default: %(default)s)"
    add("--runs", type=argument(writable, "runs", Path), default=Path("runs"), help=runs)
    add("--published", type=argument(there, "book/records", Path), help="folder of records to read as well")
    add("--sweep", action="store_true", help="take the sets of dm and david out of one run over all L")
    add("--device", type=argument(known_device, "cpu"), help="cpu or cuda (default: cuda if there is a GPU)")
    where = parser.add_mutually_exclusive_group()
    processes = "processes of this machine, a record each; -1: one a core"
    where.add_argument("--jobs", type=argument(jobs, 2, int), help=processes)
    where.add_argument("--dask", metavar="ADDRESS", help="of a Dask scheduler, whose workers make a record each")
    options = parser.parse_args(arguments)
    try:
        options.settings = changed(options.preset, dict(options.set))
    except ValueError as error:
        parser.error(f"argument --set: {error} (right is, say, size=64)")
    options.error = parser.error
    return options


def cluster(address: str | None):
    """A client of the Dask scheduler at ``address``, to be closed by ``with``; None without an address."""
    if address is None:
        return nullcontext()
    from dask.distributed import Client  # optional: the extra "cluster"

    return Client(address)


def run(arguments: list[str] | None = None) -> int:
    """Make the records that are missing, and print a line for each."""
    options = parse(arguments)
    store = Store(options.runs, options.published)
    with sharding.group(options.device) as device, cluster(options.dask) as client:
        if sharding.size() > 1 and (options.jobs or client):
            raise ValueError("torchrun spreads one run, --jobs and --dask a table: choose one of them")
        try:
            where = {"root": options.root, "options": dict(options.option), "device": device}
            experiment = Experiment(options.dataset, options.settings, store, **where, swept=options.sweep)
            _ = experiment.at_hand and experiment.dataset  # lists the videos: what is wrong is said before any work
        except (ValueError, OSError) as error:
            options.error(f"argument --dataset, --root or --option: {error}")
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


def cache(arguments: list[str] | None = None) -> None:
    """Decode both splits of a dataset into the cache."""
    parser = argparse.ArgumentParser(prog="david cache", description="Decode a dataset before it is needed.")
    parser.add_argument("dataset", choices=READERS, help="the name of its reader")
    parser.add_argument("root", nargs="?", help="its folder")
    parser.add_argument("--lists", help="the folder, or CSV file, of its lists")
    parser.add_argument("--split", type=int, help="which official split")
    parser.add_argument(
        "--missing", choices=("error", "skip"), help="what to do about listed videos that are not there"
    )
    parser.add_argument("--preset", default="paper", choices=PRESETS, help="of the clips (default: %(default)s)")
    for name in ("frames", "stride", "size"):
        parser.add_argument(f"--{name}", type=int, help="instead of the preset's")
    parser.add_argument("--workers", type=int, help="decoder processes (default: one a core)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds a video may take (default: %(default)s)")
    options = vars(parser.parse_args(arguments))
    given = {name: options[name] for name in ("root", "lists", "split", "missing") if options[name] is not None}
    dataset, preset = load(options["dataset"], **given), PRESETS[options["preset"]]
    shape = {name: options[name] or getattr(preset, name) for name in ("frames", "stride", "size")}
    for split in ("train", "test"):
        sampling = sampling_of(split, **shape, seed=0)
        folder, skipped = decoded(dataset, split, sampling, workers=options["workers"], timeout=options["timeout"])
        again = sum(not video["damaged"] for video in skipped)
        said = f"; {again} of them not for good: give the same command again" if again else ""
        print(f"{len(getattr(dataset, split)) - len(skipped):,} {split} clips, {len(skipped)} left out: {folder}{said}")


# subcommand: (its module and function, which takes arguments; what it does)
COMMANDS = {
    "run": ("runs.command.run", "make the records of a table: on this machine, under torchrun, or on a Dask cluster"),
    "datasets": ("runs.command.datasets", "list the datasets that can be read"),
    "download": ("data.download.main", "fetch, verify and unpack a dataset, or say how it is had"),
    "cache": ("runs.command.cache", "decode a dataset before it is needed"),
    "publish": ("publish.main", "add a distilled set to those that david.load_set finds by name"),
    "reproduce": ("runs.reproduce.main", "compute the published records anew and compare"),
}


def datasets(arguments: list[str] | None = None) -> int:
    """Print every dataset's name and what it is."""
    argparse.ArgumentParser(prog="david datasets", description="List the datasets.").parse_args(arguments)
    for name, (module, function) in READERS.items():
        reader = getattr(import_module(f"david.data.readers.{module}"), function)
        said = getattr(reader, "func", reader).__doc__.strip()  # one reader may serve two names
        print(f"{name:12} {said.partition(chr(10))[0]}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """One of ``COMMANDS``; what is wrong is one line, but under torchrun, which reports the rank that failed."""
    known = "\n".join(f"  {name:10} {what}" for name, (_, what) in COMMANDS.items())
    parser = argparse.ArgumentParser(prog="david", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description = __doc__.partition("\n")[0]
    parser.epilog = f"commands:\n{known}\n\ndavid COMMAND --help says more"
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    options = parser.parse_args(arguments)
    module, _, function = COMMANDS[options.command][0].rpartition(".")
    try:
        return getattr(import_module(f"david.{module}"), function)(options.rest) or 0
    except KeyboardInterrupt:
        print("interrupted: the same command continues", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
