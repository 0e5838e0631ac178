"""The plan of a book is checked before it is run; a page exists only if its notebook ran to the end."""

import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml
from davidbook import build as book
from davidbook import execution
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from david.support.files import write_json

PARAMETERS = "dataset = 'motions'  # data\nseeds = [0, 1]  # of the distillation\npublished = None  # records"


def write_root(root, plan, **notebooks):
    """A repository with a parameter file `tiny` and notebooks that end in these lines of code."""
    (root / "book" / "params").mkdir(parents=True)
    (root / "book" / "params" / "tiny.yml").write_text(yaml.safe_dump(plan))
    files = [*(f"notebooks/{Path(page['output']).stem}" for page in plan), "notebooks/statistics"]
    toc = {"root": "index", "parts": [{"chapters": [{"file": "how"}, *({"file": name} for name in files)]}]}
    (root / "book" / "_toc.yml").write_text(yaml.safe_dump(toc))
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
    records = page(output="records.ipynb", parameters={"published": "../book"})
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": "[0,1"}, r"parameter seeds='\[0,1' is wrong: .* \(right is, say, seeds=\[0, 1\]\)"),
        ({"seeds": [0, "one"]}, "'one' is not a whole number"),
        ({"dataset": "ucf102"}, "parameter dataset='ucf102' is wrong: unknown dataset"),
        ({"published": "../no such"}, r"parameter published='\.\./no such' is wrong: .* is no folder that is here"),
    ],
)
def test_a_wrong_value_of_a_parameter(tmp_path, capsys, environment, given, message):
    root = write_root(tmp_path, [page(), page(output="other.ipynb", parameters=given)], good="1")
    with pytest.raises(ValueError, match=rf"tiny\.yml: other\.ipynb: .*{message}"):
        book.load_plan(root, "tiny")
    with pytest.raises(SystemExit):
        book.main(["--root", str(root), "--preset", "tiny"])
    assert "python -m davidbook: error: " in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_notebook(tmp_path):
    root = write_root(tmp_path, [page(), page(notebook="02-table.ipynb")], good="1")
    with pytest.raises(FileNotFoundError, match=r"tiny\.yml names a notebook .*notebooks/02-table\.ipynb"):
        book.load_plan(root, "tiny")


def test_the_contents_and_the_plan_name_the_same_pages(tmp_path):
    root = write_root(tmp_path, [page()], good="1")
    assert book.toc_pages(root) == ["index", "how", "notebooks/page", "notebooks/statistics"]
    book.check_toc(root, [page()])
    with pytest.raises(ValueError, match=r"the same pages: notebooks/new, notebooks/page$"):
        book.check_toc(root, [page(output="new.ipynb")])


@pytest.fixture
def environment(monkeypatch):
    """main sets these; they are put back afterwards."""
    for name in ("DAVID_PROGRESS", "PYDEVD_DISABLE_FILE_VALIDATION"):
        monkeypatch.setenv(name, "1")


def test_failing_notebooks_do_not_cost_the_others(tmp_path, monkeypatch, capsys, environment):
    monkeypatch.setattr(book, "build_html", lambda root: pytest.fail("a book was built in spite of a failure"))
    plan = [
        page(notebook="bad.ipynb", output="bad.ipynb"),
        page(notebook="dead.ipynb", output="dead.ipynb", parameters=None),
        page(title="Seven"),
    ]
    code = "import os\nprint(seeds, os.environ['DAVID_PROGRESS'], os.path.basename(os.getcwd()))"
    notebooks = {"good": code, "bad": "seeds[3]['no such thing']", "dead": "import os\nos._exit(1)"}
    root = write_root(tmp_path, plan, **notebooks)
    (root / "_config.yml").write_text("repository: {url: 'https://github.com/some/where'}")

    assert book.main(["--root", str(root), "--preset", "tiny"]) == 1
    out, err = capsys.readouterr()
    assert all(line in out for line in ("1/3] bad.ipynb ... failed", "2/3] dead.ipynb ... failed", "3/3] page.ipynb"))
    first, second = err.split("\ndead.ipynb failed in cell 3 of notebooks/dead.ipynb")
    assert "bad.ipynb failed in cell 3 of notebooks/bad.ipynb" in first and "seeds[3]['no such thing']" in first
    assert "IndexError: list index out of range" in first and "\x1b" not in first
    assert "os._exit(1)" in second and "DeadKernelError: Kernel died" in second
    assert [path.name for path in (root / "book" / "notebooks").iterdir()] == ["page.ipynb"]
    assert {path.name for path in (root / "_build" / "unfinished").iterdir()} == {"bad.ipynb", "dead.ipynb"}

    written = nbformat.read(root / "book" / "notebooks" / "page.ipynb", as_version=4)
    title, links, parameters, injected, cell = written.cells
    assert title.source == "# Seven\n\nText."
    assert links.source == book.source_links(root, "good.ipynb")
    assert parameters.source == PARAMETERS and parameters.metadata.tags == ["parameters"]
    assert "seeds = [7]" in injected.source and "hide-input" in injected.metadata.tags
    assert cell.outputs[0].text == "[7] 0 notebooks\n"
    assert str(tmp_path) not in str(written)  # what is published names no folder of this machine
    source = nbformat.read(root / "notebooks" / "good.ipynb", as_version=4)
    assert len(source.cells) == 3 and not source.cells[2].outputs


# A kernel that is busy for a second more once it has replied, when it is interrupted so that it can be ended.
LINGER = """
import time
kernel = get_ipython().kernel
reply = kernel.shell_handlers["kernel_info_request"]
async def linger(*message):
    await reply(*message)
    time.sleep(1)
kernel.shell_handlers["kernel_info_request"] = linger
"""


def test_the_end_of_a_kernel_is_no_error(tmp_path, capfd, environment):
    root = write_root(tmp_path, [page()], good=LINGER)
    book.run_notebook(root, page())
    assert capfd.readouterr() == ("", "")


def test_a_page_is_outdated_when_what_it_was_made_from_has_changed(tmp_path):
    find = "from david import Store\nstore = Store('../runs', '../published')\n"
    find += "print(bool(store.find(dataset='motions', fingerprint=None, method='dm', ipc=1, seed=0, settings={})))"
    root = write_root(tmp_path, [page()], good=find)
    published, own = (root / name / "motions-dm-ipc1-seed0-0.json" for name in ("published", "runs"))
    write_json(published, {"format": "?"})

    assert not execution.unchanged(root, page())
    book.run_notebook(root, page())
    assert execution.unchanged(root, page())
    for path in (published, own):  # a record that the notebook looked for
        write_json(path, {"format": "another"})
        assert not execution.unchanged(root, page())
        path.unlink()
        write_json(published, {"format": "?"})
        assert execution.unchanged(root, page())
    write_json(root / "runs" / "motions-mtt-ipc1-seed0-0.json", {"of": "another method"})
    assert execution.unchanged(root, page())
    for changed in (page(title="New"), page(parameters={"seeds": [8]}), page(parameters={"seeds": [7], "root": "x"})):
        assert not execution.unchanged(root, changed)
    write_json(root / "book" / "records" / "new.json", {})
    assert not execution.unchanged(root, page())
    (root / "book" / "records" / "new.json").unlink()
    assert execution.unchanged(root, page())
    notebook = root / "notebooks" / "good.ipynb"
    notebook.write_text(notebook.read_text().replace("Text.", "Other text."))
    assert not execution.unchanged(root, page())


@pytest.mark.parametrize("force", [False, True])
def test_an_unchanged_page_is_run_again_only_if_forced(tmp_path, monkeypatch, capsys, environment, force):
    ran = []
    monkeypatch.setattr(book.execution, "unchanged", lambda root, page: True)
    monkeypatch.setattr(book, "run_notebook", lambda root, page, progress: ran.append(page["output"]))
    monkeypatch.setattr(book.timings, "write_page", lambda root, plan: None)
    monkeypatch.setattr(book, "build_html", lambda root: root / "index.html")
    root = write_root(tmp_path, [page()], good="1")
    assert book.main(["--root", str(root), "--preset", "tiny", *["--force"] * force]) == 0
    assert ran == ["page.ipynb"] * force
    assert ("[1/1] page.ipynb ... unchanged" in capsys.readouterr().out) != force


@pytest.mark.parametrize(("only", "pages"), [(None, ["one.ipynb", "two.ipynb"]), ("w", ["two.ipynb"])])
def test_main_runs_the_chosen_pages_then_builds(tmp_path, monkeypatch, capsys, environment, only, pages):
    ran = []
    monkeypatch.setattr(book, "run_notebook", lambda root, page, progress: ran.append(page["output"]))
    monkeypatch.setattr(book.timings, "write_page", lambda root, plan: ran.append(f"statistics of {len(plan)}"))
    monkeypatch.setattr(book, "build_html", lambda root: ran.append("html") or root / "index.html")
    root = write_root(tmp_path, [page(output="one.ipynb"), page(output="two.ipynb")], good="1")
    arguments = ["--root", str(root), "--preset", "tiny", *(["--only", only] if only else [])]
    assert book.main(arguments) == 0
    assert ran == [*pages, "statistics of 2", "html"]
    out, err = capsys.readouterr()
    assert f"The book is built: open {root / 'index.html'}" in out
    assert ("one.ipynb was left as it is, though its sources have changed" in err) == bool(only)


def test_links_to_the_notebook_in_the_repository(tmp_path):
    root = write_root(tmp_path, [page()], good="1")
    assert book.source_links(root, "good.ipynb") == ""
    repository = {"url": "https://github.com/some/where", "branch": "dev"}
    (root / "_config.yml").write_text(yaml.safe_dump({"repository": repository}))
    for link in (
        "https://github.com/some/where/blob/dev/notebooks/good.ipynb",
        "https://colab.research.google.com/github/some/where/blob/dev/notebooks/good.ipynb",
        "https://mybinder.org/v2/gh/some/where/dev?labpath=notebooks%2Fgood.ipynb",
    ):
        assert f"]({link})" in book.source_links(root, "good.ipynb")


def test_html_is_built_with_every_warning_an_error_and_replaces_the_old_when_whole(tmp_path, monkeypatch):
    commands, status = [], 0
    html = tmp_path / "_build" / "html"
    html.mkdir(parents=True)
    (html / "old.html").touch()

    def run(command, cwd, **_):
        commands.append(command[1:])
        new = Path(command[command.index("--path-output") + 1]) / "_build" / "html"
        new.mkdir(parents=True)
        (new / "index.html").write_text("new")
        return subprocess.CompletedProcess(command, status, "a warning\n")

    monkeypatch.setattr("subprocess.run", run)
    status = 1
    with pytest.raises(RuntimeError, match=r"a warning\n\njupyter-book failed \(exit 1\)"):
        book.build_html(tmp_path)
    assert [path.name for path in html.iterdir()] == ["old.html"]
    status = 0
    assert book.build_html(tmp_path) == html / "index.html"
    assert [path.name for path in html.iterdir()] == ["index.html"]
    assert commands[0][:2] == ["build", "book"] and {"--all", "-W", "-n", "--keep-going"} <= set(commands[0])
