"""The pages of a built book in one document whose links stay inside it, and that document in print."""

import re

import pytest
from davidbook import pdf
from PIL import Image

PAGE = """<html><head><title>T</title><link rel="stylesheet" href="{up}s.css"><link rel="next" href="x.html">
<script src="{up}theme.js"></script>{math}</head><body><nav>menu</nav>
<article><h1 id="top">{title}<a href="#top">#</a></h1>{body}</article></body></html>"""
MATH = '<script src="../mathjax.js"></script>'


@pytest.fixture
def html(tmp_path):
    """A built book of two pages and a picture."""
    (tmp_path / "notebooks").mkdir()
    first = '<a id="out" href="https://a.org/b">o</a> <a id="two" href="notebooks/two.html#here">t</a>'
    (tmp_path / "index.html").write_text(PAGE.format(up="", math="", title="Index", body=first))
    second = (
        '<p id="here">Here. <a id="back" href="../index.html">b</a> <a id="own" href="#here">h</a>'
        '<a id="file" href="../_sources/two.ipynb">d</a></p>'
        '<img src="../picture.png"><details><summary>Code</summary>hidden</details>'
    )
    (tmp_path / "notebooks" / "two.html").write_text(PAGE.format(up="../", math=MATH, title="Two", body=second))
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "picture.png")
    return tmp_path


def test_pages_become_one_document(html):
    book = pdf.join_pages(html, ["index", "notebooks/two"])
    assert [article["id"] for article in book.find_all("article")] == ["index--", "notebooks-two--"]
    assert book.title.string == "Index" and not book.find("nav") and "hidden" not in book.get_text()
    links = {a["id"]: a.get("href") for a in book.find_all("a", id=True)}
    assert links == {
        "index--out": "https://a.org/b",
        "index--two": "#notebooks-two--here",
        "notebooks-two--back": "#index--",
        "notebooks-two--own": "#notebooks-two--here",
        "notebooks-two--file": None,
    }
    anchors = {element["id"] for element in book.find_all(id=True)}
    assert {link[1:] for link in links.values() if link and link[0] == "#"} <= anchors
    assert [a["src"] for a in book.find_all(["img", "script"])] == ["mathjax.js", "picture.png"]
    assert [a["href"] for a in book.find_all("link")] == ["s.css"]  # once, though both pages have it


def test_a_page_that_was_not_built(html):
    with pytest.raises(FileNotFoundError, match=r"three\.html does not exist: build the book first"):
        pdf.join_pages(html, ["index", "three"])


def test_no_browser(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match=r"no Chromium or Chrome on the path: install one"):
        pdf.find_browser()


def test_a_book_is_printed(html, tmp_path, capsys):
    try:
        pdf.find_browser()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    (tmp_path / "book").mkdir()
    toc = "root: index\nparts:\n  - chapters:\n      - file: notebooks/two\n"
    (tmp_path / "book" / "_toc.yml").write_text(toc)
    built = tmp_path / "_build" / "html"
    built.mkdir(parents=True)
    for name in ("index.html", "picture.png", "notebooks"):
        (html / name).rename(built / name)
    assert pdf.main(["--root", str(tmp_path)]) == 0
    assert "david.pdf, 0." in capsys.readouterr().out
    printed = (tmp_path / "_build" / "david.pdf").read_bytes()
    assert len(re.findall(rb"/Type /Page\b", printed)) == 2 and len(re.findall(rb"/Subtype /Image", printed)) == 1
    assert not (built / "joined.html").exists()


def test_a_browser_that_fails(html, tmp_path, monkeypatch):
    script = tmp_path / "broken"
    script.write_text("#!/bin/sh\necho it broke >&2\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr(pdf, "find_browser", lambda: str(script))
    with pytest.raises(RuntimeError, match=r"printed no PDF of .*index\.html \(exit 3\): it broke"):
        pdf.print_pdf(html / "index.html", tmp_path / "out.pdf")
    assert not (tmp_path / "out.pdf").exists()
