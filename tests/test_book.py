"""The plan of a book is checked before it is run; a page exists only if its notebook ran to the end."""

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from david import book

PARAMETERS = "dataset = 'motions'  # data\nseeds = [0, 1]  # of the distillation\npublished = None  # records"


def write_root(root, plan, **notebooks):
    """A repository with a parameter file `tiny` and notebooks that end in these lines of code."""
    (root / "book" / "params").mkdir(parents=True)
    (root / "book" / "params" / "tiny.yml").write_text(yaml.safe_dump(plan))
    (root / "notebooks").mkdir()
    for name, code in notebooks.items():
        cells = [
            new_markdown_cell("# A title\n\nText."),
            new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            new_code_cell(code),
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")
    return root


def page(**changes):
    return {"notebook": "good.ipynb", "output": "page.ipynb", "parameters": {"seeds": [7]}} | changes


def test_a_good_plan(tmp_path):
    plan = [page(), page(output="again.ipynb", parameters=None, title="Again")]
    assert book.load_plan(write_root(tmp_path, plan, good="1"), "tiny") == plan


def test_a_plan_takes_over_the_pages_of_another_that_read_records(tmp_path):
    records = page(output="records.ipynb", parameters={"published": "records"})
    root = write_root(tmp_path, [page(), records], good="1")
    own = page(output="own.ipynb")
    (root / "book" / "params" / "small.yml").write_text(yaml.safe_dump([own, {"published_pages_of": "tiny"}]))
    assert book.load_plan(root, "small") == [own, records]


def test_an_unknown_preset_names_the_known_ones(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no parameter file .*demo\.yml; known presets are tiny"):
        book.load_plan(write_root(tmp_path, []), "demo")


def test_a_parameter_that_the_notebook_does_not_have(tmp_path):
    root = write_root(tmp_path, [page(parameters={"dataset": "ucf12", "sedes": [0]})], good="1")
    message = r"tiny\.yml: good\.ipynb has no parameter 'sedes'; it has dataset, seeds, published"
    with pytest.raises(ValueError, match=message):
        book.load_plan(root, "tiny")


def test_a_missing_notebook(tmp_path):
    root = write_root(tmp_path, [page(), page(notebook="02-table.ipynb")], good="1")
    with pytest.raises(FileNotFoundError, match=r"tiny\.yml names a notebook .*notebooks/02-table\.ipynb"):
        book.load_plan(root, "tiny")


def test_one_failing_notebook_of_two(tmp_path, monkeypatch, capsys):
    for name in ("DAVID_PROGRESS", "PYDEVD_DISABLE_FILE_VALIDATION"):
        monkeypatch.setenv(name, "1")  # main sets both; they are put back afterwards
    monkeypatch.setattr(book, "build_html", lambda root: pytest.fail("a book was built in spite of a failure"))
    plan = [page(notebook="bad.ipynb", output="bad.ipynb"), page(title="Seven")]
    code = "import os\nprint(seeds, os.environ['DAVID_PROGRESS'], os.path.basename(os.getcwd()))"
    root = write_root(tmp_path, plan, good=code, bad="seeds[3]['no such thing']")

    assert book.main(["--root", str(root), "--preset", "tiny"]) == 1
    out, err = capsys.readouterr()
    assert "[1/2] bad.ipynb ... failed" in out and "[2/2] page.ipynb ... " in out
    assert "bad.ipynb failed:" in err and "IndexError: list index out of range" in err
    assert [path.name for path in (root / "book" / "notebooks").iterdir()] == ["page.ipynb"]

    written = nbformat.read(root / "book" / "notebooks" / "page.ipynb", as_version=4)
    title, parameters, injected, cell = written.cells
    assert title.source == "# Seven\n\nText."
    assert parameters.source == PARAMETERS and parameters.metadata.tags == ["parameters"]
    assert "seeds = [7]" in injected.source and "hide-input" in injected.metadata.tags
    assert cell.outputs[0].text == "[7] 0 notebooks\n"
    source = nbformat.read(root / "notebooks" / "good.ipynb", as_version=4)
    assert len(source.cells) == 3 and not source.cells[2].outputs


@pytest.mark.parametrize(("only", "pages"), [(None, ["one.ipynb", "two.ipynb"]), ("w", ["two.ipynb"])])
def test_main_runs_the_chosen_pages_then_builds(tmp_path, monkeypatch, capsys, only, pages):
    for name in ("DAVID_PROGRESS", "PYDEVD_DISABLE_FILE_VALIDATION"):
        monkeypatch.setenv(name, "1")
    ran = []
    monkeypatch.setattr(book, "run_notebook", lambda root, page: ran.append(page["output"]))
    monkeypatch.setattr(book, "build_html", lambda root: ran.append("html") or root / "index.html")
    root = write_root(tmp_path, [page(output="one.ipynb"), page(output="two.ipynb")], good="1")
    arguments = ["--root", str(root), "--preset", "tiny", *(["--only", only] if only else [])]
    assert book.main(arguments) == 0
    assert ran == [*pages, "html"]
    assert f"The book is built: open {root / 'index.html'}" in capsys.readouterr().out


def test_html_is_built_with_every_warning_an_error(tmp_path, monkeypatch):
    commands = []

    def run(command, cwd, check):
        commands.append((command[1:], cwd, check))
        (cwd / "_build" / "html").mkdir(parents=True, exist_ok=True)
        if len(commands) == 2:
            (cwd / "_build" / "html" / "index.html").touch()

    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(FileNotFoundError, match=r"without writing .*index\.html"):
        book.build_html(tmp_path)
    assert book.build_html(tmp_path) == tmp_path / "_build" / "html" / "index.html"
    (arguments, cwd, check), _ = commands
    assert arguments[0] == "build"
    assert {"-W", "-n", "--keep-going"} <= set(arguments) and cwd == tmp_path and check
