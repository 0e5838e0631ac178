"""The project's own rules: one set of requirements, clean notebooks, no machine's paths."""

import ast
import importlib.metadata
import json
import re
import subprocess
import tokenize
import tomllib
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}


def declared() -> list[str]:
    """What pyproject.toml asks for, all extras included, in its order."""
    extras = PROJECT["optional-dependencies"]
    strings = PROJECT["dependencies"] + extras["book"] + extras["cluster"] + extras["test"]
    return [s for s in strings if s not in ("david[book]", "david[cluster]")]


def pins() -> dict[str, str]:
    """Package to version in constraints.txt; a line that is not ``name==version`` fails."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r"([a-z0-9-]+)==([0-9][0-9a-z.]*)", line)
            assert match, f"constraints.txt: not 'name==version': {line!r}"
            assert match[1] not in found, f"constraints.txt: {match[1]} twice"
            found[match[1]] = match[2]
    return found


def test_environment_yml_equals_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, nested = environment["dependencies"]
    assert (environment["name"], pip) == ("david", "pip")
    # Binder reads one version from here; of a range it would take its own default.
    name, version = python.split("=")
    assert name == "python" and version == "3.12" and f"{version}.0" in SpecifierSet(PROJECT["requires-python"])
    assert nested["pip"] == ["-c constraints.txt", *declared(), "-e ."]


def test_constraints_pin_every_direct_dependency():
    for requirement in map(Requirement, declared()):
        version = pins().get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} has no pin"
        assert requirement.specifier.contains(version), f"pin {version} is outside {requirement}"


def test_constraints_pin_every_indirect_dependency():
    """Walks what is installed, so each Python and platform that runs the tests checks its own set."""
    seen, todo = set(), [Requirement(string) for string in declared()]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, *requirement.extras) in seen or name.startswith(("nvidia-", "cuda-", "triton")):
            continue  # torch's CUDA builds pin their own parts
        seen.add((name, *requirement.extras))
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        assert name in pins(), f"{name} has no pin"
        for need in map(Requirement, needs):
            extras = requirement.extras or {""}
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(need)


def test_jupyter_book_is_the_first():
    assert importlib.metadata.version("jupyter-book").startswith("1.")


def test_python_floor_excludes_what_the_pins_cannot_take():
    floor = SpecifierSet(PROJECT["requires-python"])
    assert "3.11.4" not in floor and all(v in floor for v in ("3.11.5", "3.12.0", "3.13.0"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_runs_what_there_is_and_stops_at_the_first_failure(name):
    workflow = WORKFLOWS[name]
    assert workflow[True] and workflow["permissions"] == {"contents": "read"}  # YAML reads `on` as true
    assert workflow["defaults"]["run"]["shell"] == "bash"  # which GitHub calls with -eo pipefail
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    presets = {path.stem for path in (ROOT / "book" / "params").glob("*.yml")}
    for job in workflow["jobs"].values():
        assert job["runs-on"] == "ubuntu-latest" and all(("run" in step) != ("uses" in step) for step in job["steps"])
        for step in job["steps"]:
            if "run" in step:
                make, target, *variables = step["run"].split()
                assert make == "make" and target in targets
                assert {v.removeprefix("PRESET=") for v in variables} <= presets
            else:
                assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


def test_workflows_test_every_python_and_publish_the_book():
    versions = WORKFLOWS["test"]["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13"]  # strings: 3.10 as a number is 3.1
    build, deploy = (WORKFLOWS["book"]["jobs"][name] for name in ("build", "deploy"))
    uploaded = [step for step in build["steps"] if "upload-pages-artifact" in step.get("uses", "")]
    assert uploaded[0]["with"] == {"path": "_build/html"} and deploy["needs"] == "build"
    assert deploy["permissions"] == {"pages": "write", "id-token": "write"}


def test_no_paths_of_one_machine():
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    found = []
    for name in filter(None, listed.decode().split("\0")):
        path = ROOT / name
        if name.startswith("tests/") or not path.is_file():
            continue
        content = path.read_bytes()
        if b"\0" not in content:  # text
            lines = enumerate(content.splitlines(), 1)
            found += [f"{name}:{n}" for n, line in lines if re.search(rb"(?<!\w)/(work|root|tmp)/", line)]
    assert not found


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def code_cells(request) -> list[dict]:
    cells = json.loads(request.param.read_text())["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells if cell["cell_type"] == "code"]


def test_notebook_has_one_parameters_cell_of_commented_literals(code_cells):
    """papermill reads names, values and trailing comments of this cell and shows them as its help."""
    tagged = [cell["source"] for cell in code_cells if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    tokens = tokenize.tokenize(BytesIO(tagged[0].encode()).readline)
    commented = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    statements = ast.parse(tagged[0]).body
    assert statements
    for statement in statements:
        where = f"line {statement.lineno} of the parameters cell"
        assert isinstance(statement, ast.Assign | ast.AnnAssign), f"{where} is not an assignment"
        ast.literal_eval(statement.value)
        assert statement.end_lineno in commented, f"{where} has no trailing comment"


def test_notebook_installs_david_on_colab_before_anything_else(code_cells):
    repository = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    # Not david[book]: its ipykernel would replace the one that Colab runs on.
    expected = f"""import sys

if "google.colab" in sys.modules:  # elsewhere david is installed already
    get_ipython().run_line_magic(
        "pip", "install -q git+{repository} myst-nb"
    )"""
    first = code_cells[0]
    assert first["source"] == expected and first["metadata"]["tags"] == ["remove-cell"]


def test_notebook_has_no_outputs(code_cells):
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code_cells)


def test_notebook_cells_are_short(code_cells):
    assert max(len(cell["source"].splitlines()) for cell in code_cells) <= 25
