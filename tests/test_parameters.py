"""What papermill injects is checked, names and values, against what the notebook declares; so is what commands take."""

import ast
import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args, get_origin

import papermill
import pytest
from davidbook.parameters import check, check_parameters, declared
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"

DECLARED = "dataset: str = 'motions'  # which data\nseeds = [0, 1]  # of the distillation"


def cells_of(name, parameters=None):
    """The code cells of a notebook down to the first that checks, with parameters injected as papermill does."""
    notebook = load_notebook_node(str(NOTEBOOKS / name))
    notebook = parameterize_notebook(notebook, parameters) if parameters else notebook
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return sources[: next(k for k, source in enumerate(sources) if "check_parameters(" in source)]


def judged(cells, **names) -> dict:
    """The names that some cells leave, checked as the notebook's next cell does."""
    found = {"In": [""], **names}
    for source in cells:
        found["In"].append(source)
        exec(source, found)
    check_parameters(found)
    return found


EVERY = {
    path.name: declared(next(source for source in cells_of(path.name) if not source.startswith("import")))
    for path in sorted(NOTEBOOKS.glob("*.ipynb"))
}
ALL = [(notebook, name) for notebook, known in EVERY.items() for name in known]


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    """Beside the notebooks, as papermill runs them, with a cache folder that is to stay empty."""
    monkeypatch.chdir(NOTEBOOKS)
    monkeypatch.setenv("DAVID_CACHE", str(tmp_path / "cache"))
    yield
    assert not (tmp_path / "cache").exists()


def wrong_values(name, kind, default):
    """Values that no parameter of a kind can have, and some that this one cannot."""
    outer, inner = get_origin(kind) or kind, get_args(kind)[-1:]
    number = ["two", "1,5", "[1]", True, [1], {"a": 1}, -1, math.nan, math.inf, ""]
    texts = [3, 2.5, True, False, ["motions"], {"motions": 1}, "", "  "]
    found = {
        int: [*number, 1.5, 10.0, "0x", "1e3"],
        float: number,
        bool: [0, 1, 2.5, "maybe", "0", "", [True], {"make": True}],
        str: texts,
        list: [3, 0.5, True, "[0,1", "0,1", "random", "{}", "", {"a": 1}, {}, [None], [[]], [{}]],
        dict: [3, True, "flip=false", "size=64", "[1]", "", ["a"], [], {1: 2}, {None: 1}],
    }[outer]
    more = {
        (int,): [["a"], [0.5], [True], [-1], ["x", 1], [1, 1], "[a]", "[0.5]", "[-1]"],
        (float,): [["a"], [True], [0], [-1], [math.nan], [5, 5], "[a]"],
        (str,): [[3], [True], ["dm", "dm"], [""], ["random", 1], ["no such thing"], "[no such thing]"],
    }
    found = found + (more.get(inner, []) if outer is list else [])
    meant = {
        "preset": ["demos", "Smoke"], "dataset": ["ucf102", "motion"], "metric": ["top2", "accuracy"],
        "beside": ["ucf12", "Kinetics"], "static": ["Circle"], "dynamic": ["moveleft"], "root": ["/no such/folder"],
        "published": ["../no such"], "records": ["../no such"], "said": ["../no such"],
        "tried": ["none.json"], "toc": ["_toc.yml", "../book"],
        "runs": ["00-step-by-step.ipynb", "00-step-by-step.ipynb/runs"], "device": ["a/b", "a b"], "gpu": ["../h100"],
        "options": [{"flp": False}, {"split": 0}, {"split": "two"}, {"seed": -1}, {"root": "/data"}],
        "settings": [{"sise": 64}, {"size": 4}, {"size": "big"}, {"search_p": 2}, {"frames": 8.5}, {"width": None}],
        "longer": [{"distill_iteration": 4}, {"mtt_iterations": -4}, {"distill_lr": [1]}],
        "datasets": [{}, {"ucf102": {}}, {"motions": {"sise": 1}}, {"motions": 1}], "roots": [{"ucf12": "/no such"}],
        "ours": [{}, {"ucf102": {}}, {"motions": {"frames": 0}}, {"motions": None}],
        "targets": [{}, {"a": [1]}, {"a": [1, 2, 3]}, {"a": [0, 5]}, {"a": 5}, {"a": ["x", 1]}], "share": [1.5],
        "method": ["dmm", "full", "vdsd", "dm:x"], "learned": ["dvid", "mtt:dm"], "grid": ["dm", "david"],
        "early": [["dm"], ["david", "random"], "[dm]"], "full": [["mtt"]],
        "methods": [["dm", "dm:8"], "[dm, dmm]", ["dm:3"], ["random:1,5"]],
        "ipc": [0], "ipcs": [[0], [1, 0], []], "held_out": [[-1]], "seeds": [[]], "perplexities": [[]],
        "horizons": [[]],
        "shown": [["Circle"], "[MoveLeft, Circle]"], "draws": [0], "trials": [0], "pairs": [0],
        "iterations": [0], "steps": [0], "neighbours": [0], "groups": [0], "gpus": [0], "decoders": [0], "decoded": [0],
    }  # fmt: skip
    return found + meant.get(name, []) + ([None, "null"] * (outer is not str) or [None]) * (default is not None)


@pytest.mark.parametrize(("notebook", "name"), ALL)
def test_every_wrong_value_is_one_sentence(notebook, name):
    """It names the parameter and the value, and gives an example, which is right."""
    known = EVERY[notebook]
    values = wrong_values(name, *known[name])
    assert len(values) >= 5
    for value in values:
        with pytest.raises(ValueError) as caught:
            check(known, {name: value})
        said = str(caught.value)
        assert "\n" not in said and said.startswith(f"parameter {name}={value!r} is wrong: "), said
        example = said.removesuffix(")").rpartition(f" (right is, say, {name}=")[2]
        if name not in ("root", "roots", "options"):  # of data that are not at hand
            right = ast.literal_eval(example)
            assert check(known, {name: right})[name] == right


@pytest.mark.parametrize("notebook", EVERY)
def test_what_a_notebook_declares_is_right_and_so_is_its_text(notebook):
    """Text as ``-p`` makes it of what JSON writes: of all that is no number, and here of numbers as well."""
    known = EVERY[notebook]
    assert list(papermill.inspect_notebook(str(NOTEBOOKS / notebook))) == list(known)  # of others papermill warns
    defaults = {name: default for name, (_, default) in known.items()}
    assert check(known, defaults) == defaults
    text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in defaults.items()}
    assert check(known, text) == defaults
    found = judged(cells_of(notebook), get_ipython=lambda: None)  # by hand, without papermill
    assert {name: found[name] for name in known} == defaults
    found = judged(cells_of(notebook, text))
    assert {name: found[name] for name in known} == defaults
    with pytest.raises(ValueError, match="this notebook has no parameter 'sede'"):
        judged(cells_of(notebook, {"sede": 1}))


@pytest.mark.parametrize(
    ("notebook", "name", "text", "value"),
    [
        ("02-table-1", "make", "false", False), ("02-table-1", "make", "No", False), ("02-table-1", "make", "ON", True),
        ("02-table-1", "seeds", "[0,1]", [0, 1]), ("02-table-1", "seeds", "- 3\n- 1", [3, 1]),
        ("02-table-1", "seeds", (0, 1), [0, 1]), ("02-table-1", "seeds", ["3", 4], [3, 4]),
        ("02-table-1", "methods", "[random, dm:04, 'dm:1,2,4']", ["random", "dm:4", "dm:1,2,4"]),
        ("02-table-1", "methods", '["dm:8", "random:08"]', ["dm", "random"]),
        ("02-table-1", "root", "null", None),
        ("02-table-1", "published", "~", None), ("02-table-1", "published", Path("../book"), "../book"),
        ("02-table-1", "settings", "{size: 64, distill_lr: 1e-3}", {"size": 64, "distill_lr": 1e-3}),
        ("02-table-1", "settings", {"distill_lr": 1, "size": "64"}, {"distill_lr": 1.0, "size": 64}),
        ("02-table-1", "longer", "distill_iterations: 9", {"distill_iterations": 9}),
        ("07-features", "perplexities", "[5, 7.5]", [5.0, 7.5]), ("14-speed", "share", "0.5", 0.5),
        ("14-speed", "targets", "{mine: [3, 40]}", {"mine": [3, 40]}), ("01-tr-ucf", "strips", "off", False),
        ("16-does-it-distil", "datasets", "{ucf12: {size: 64}}", {"ucf12": {"size": 64}}),
        ("13-own-videos", "options", "{flip: yes, test_share: .5}", {"flip": True, "test_share": 0.5}),
        ("11-gallery", "shown", "[Disc]", ["Disc"]), ("09-classes", "learned", "david:grid", "david:grid"),
    ],
)  # fmt: skip
def test_text_becomes_what_it_stands_for(notebook, name, text, value):
    found = check(EVERY[f"{notebook}.ipynb"], {name: text})[name]
    assert found == value and type(found) is type(value)


def test_a_value_is_judged_beside_the_others():
    known, settings = EVERY["02-table-1.ipynb"], {"frames": 16}
    assert check(known, {"methods": ["dm:8", "dm:16"], "settings": settings})["methods"] == ["dm:8", "dm"]
    with pytest.raises(ValueError, match=r"parameter longer=.*setting mtt_lr_unit='pixel' is of SGD's steps"):
        check(known, {"longer": {"mtt_optimizer": "adam"}})
    with pytest.raises(ValueError, match=r"parameter options=.*unknown option 'test_shar'; did you mean 'test_share'"):
        check(EVERY["13-own-videos.ipynb"], {"options": {"test_shar": 0.5}})
    for options in ({"split": 2}, {"classes": ["Circle"]}, "{classes: []}"):
        with pytest.raises(ValueError, match=r"parameter options=.*(motions has one split, 1|unknown classes)"):
            check(known, {"options": options})
    with pytest.raises(ValueError, match=r"parameter roots=.*unknown dataset of this notebook 'ucf12'"):
        check(EVERY["16-does-it-distil.ipynb"], {"roots": {"ucf12": "."}})
    for value, right in (("full", False), ("still", False), ("dm", True)):
        known = EVERY["11-gallery.ipynb"]
        if right:
            assert check(known, {"methods": [value]}, sets=True)["methods"] == [value]
        else:
            with pytest.raises(ValueError, match=f"'{value}' is not a method that has a set"):
                check(known, {"methods": [value]}, sets=True)


def test_names_that_are_declared_pass():
    assert judged([DECLARED, "# Parameters\nseeds = [7]\n", "import david"])["seeds"] == [7]
    judged(["import david"])  # nothing was declared
    assert judged([DECLARED])["seeds"] == [0, 1]  # run by hand: nothing was injected


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no parameter 'sedes'; did you mean 'seeds'"):
        judged([DECLARED, "# Parameters\nsedes = [7]\n"])
    with pytest.raises(ValueError, match="no parameter 'x'; it has dataset, seeds"):
        judged([DECLARED, "# Parameters\nx = 1\n"])


def test_cells_that_are_run_again_by_hand():
    """The newest declaration counts, and cells of plain assignments are none."""
    newer = "dataset: str = 'motions'\nseeds: list[int] = [5]"
    found = judged([DECLARED.replace("seeds =", "seeds: list[int] ="), "cases = ['dm']\nn = len(cases)", newer])
    assert found["seeds"] == [5]
    with pytest.raises(ValueError, match=r"parameter seeds='\[0,' is wrong"):
        judged([newer.replace("[5]", "'[0,'")])
    assert judged([newer.replace("[5]", "list(range(2))")])["seeds"] == [0, 1]
    with pytest.raises(ValueError, match=r"parameter seeds=\[-1\] is wrong: -1 is not a number of at least 0"):
        judged([newer.replace("[5]", "[0 - 1]")])
    check_parameters({})  # no notebook


def test_a_notebook_stops_at_an_unknown_parameter(tmp_path):
    source, target = NOTEBOOKS / "02-table-1.ipynb", tmp_path / "out.ipynb"
    with pytest.raises(PapermillExecutionError, match="no parameter 'seed'; did you mean 'seeds'"):
        papermill.execute_notebook(source, target, {"seed": 3}, cwd=tmp_path, progress_bar=False)


GIVEN = [
    ("00-step-by-step", "draws", "0"), ("00-step-by-step", "static", "Circle"), ("01-quickstart", "preset", "demos"),
    ("01-tr-ucf", "held_out", "maybe"), ("02-table-1", "seeds", "[0,1"), ("02-table-1", "metric", "top3"),
    ("02-table-1", "make", "never"), ("02-table-1", "options", "flip=false"), ("03-table-3", "early", "[dm]"),
    ("04-table-4", "held_out", "2"), ("05-reward", "horizons", "[]"), ("06-dataset-report", "options", "{split: 7}"),
    ("07-features", "methods", "[full]"), ("08-fig-1", "methods", "david"), ("09-classes", "ipc", "0"),
    ("10-status", "ours", "{}"), ("11-gallery", "shown", "[Circle]"), ("12-use-the-set", "settings", "{sise: 64}"),
    ("13-own-videos", "root", "/no such"), ("14-speed", "targets", "{a: 3}"), ("16-does-it-distil", "datasets", "[a]"),
]  # fmt: skip


def test_papermill_ends_with_the_sentence_and_nothing_is_written(tmp_path, monkeypatch):
    """A sample, as people type it: ``papermill -p``. Its last line names the parameter."""
    monkeypatch.setenv("DAVID_PROGRESS", "0")
    command = [str(Path(sys.executable).with_name("papermill")), "--no-progress-bar", "--log-level", "ERROR"]

    def last(notebook, name, value):
        given = ["-p", name, value] + ["-p", "runs", str(tmp_path / "runs")] * ("runs" in EVERY[f"{notebook}.ipynb"])
        files = [str(NOTEBOOKS / f"{notebook}.ipynb"), str(tmp_path / f"{notebook}-{name}.ipynb")]
        done = subprocess.run([*command, *files, *given], capture_output=True, text=True)
        assert done.returncode, f"{notebook}: {name}={value} was taken"
        return done.stderr.strip().splitlines()[-1]

    with ThreadPoolExecutor(2) as pool:
        lines = list(pool.map(lambda given: last(*given), GIVEN))
    for (_, name, _), line in zip(GIVEN, lines, strict=True):
        assert line.startswith(f"ValueError: parameter {name}=") and " is wrong: " in line and "right is, say" in line
    assert not (tmp_path / "runs").exists()
