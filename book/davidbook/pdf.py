"""``python -m davidbook.pdf``: print the built book to one PDF with headless Chromium."""

import argparse
import os
import posixpath
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

from david.runs.parameters import there
from david.support.files import atomic, write_bytes
from david.support.values import argument
from davidbook.build import toc_pages

BROWSERS = ("google-chrome", "chromium", "chromium-browser")  # where both are, a driver is mostly that of the first


def find_browser() -> str:
    """The path of Chromium or Chrome; FileNotFoundError where there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise FileNotFoundError("no Chromium or Chrome on the path: install one (Debian: apt-get install chromium)")
    return found


def join_pages(html: Path, pages: list[str]) -> BeautifulSoup:
    """One document of the articles of a built book.

    Ids get their page's name in front, so that links between pages become links inside the document.

    Args:
        html: the folder of the built book.
        pages: in order, without suffix, relative to ``html``.

    Raises:
        FileNotFoundError: a page that was not built.
    """
    start = "<!DOCTYPE html><html data-theme='light'><head></head><body><main></main></body></html>"
    book, head = BeautifulSoup(start, "html.parser"), {}
    book.main["class"] = "bd-main bd-content bd-article-container"
    for page in pages:
        path = html / f"{page}.html"
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: build the book first (make book)")
        soup = BeautifulSoup(path.read_bytes(), "html.parser")
        for element in soup.head.select("meta[charset], link[rel=stylesheet], script"):
            if element.name != "script" or "mathjax" in str(element).lower():
                _relink(element, page, pages)
                head.setdefault(str(element), element)
        article = soup.find("article")
        for element in article.find_all("details"):
            element.decompose()  # code that the page hides until it is asked for
        article["id"] = article.get("id", "")
        for element in [article, *article.find_all(True)]:
            if "id" in element.attrs:
                element["id"] = _anchor(page, element["id"])
            _relink(element, page, pages)
        book.main.append(article)
    title = book.new_tag("title", string=book.h1.get_text().removesuffix("#"))
    style = book.new_tag("style", string=Path(__file__).with_name("print.css").read_text())
    book.head.extend([*head.values(), title, style])
    return book


def _anchor(page: str, name: str) -> str:
    return f"{page}--{name}".replace("/", "-")


def _relink(element, page: str, pages: list[str]) -> None:
    """Let links of an element of ``page`` point into the joined document; sources start at the folder of the book."""
    for name in {"href", "src"} & element.attrs.keys():
        url = urlsplit(element[name])
        if url.scheme:
            continue
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(url.path))) if url.path else page
        target = path.removesuffix(".html")
        if name == "src" or element.name == "link":
            element[name] = path
        elif target in pages:
            element[name] = "#" + _anchor(target, unquote(url.fragment))
        else:
            del element[name]  # a download: nothing in a document of its own


def print_pdf(document: Path, pdf: Path) -> None:
    """Let headless Chromium print an HTML file, formulas rendered, with headings as bookmarks.

    Raises:
        FileNotFoundError: no browser.
        RuntimeError: it did not write a PDF; the message ends with what it said.
    """
    with tempfile.TemporaryDirectory() as profile, atomic(pdf) as temporary:
        # Virtual time passes only while nothing is loaded or computed: MathJax and images are done when it has passed.
        command = [
            find_browser(), "--headless", "--disable-gpu", f"--user-data-dir={profile}", "--no-pdf-header-footer",
            "--generate-pdf-document-outline", "--virtual-time-budget=60000", f"--print-to-pdf={temporary}",
            *["--no-sandbox"] * (os.geteuid() == 0), document.resolve().as_uri(),  # root cannot have a sandbox
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if not temporary.read_bytes().startswith(b"%PDF"):
            said = f"(exit {done.returncode}): {done.stderr[-2000:]}"
            raise RuntimeError(f"{command[0]} printed no PDF of {document} {said}")


def main(arguments: list[str] | None = None) -> int:
    """Join the pages of ``_build/html`` in the order of the contents and print them to ``_build/david.pdf``."""
    parser = argparse.ArgumentParser(prog="python -m davidbook.pdf", description=__doc__)
    repository = argument(there, ".", Path)
    parser.add_argument("--root", type=repository, default=Path.cwd(), help="the repository (default: this folder)")
    root = parser.parse_args(arguments).root.resolve()
    html, pdf = root / "_build" / "html", root / "_build" / "david.pdf"
    joined = html / "joined.html"  # beside the pages, so that it finds their images and styles
    try:
        write_bytes(joined, join_pages(html, toc_pages(root)).encode())
        print_pdf(joined, pdf)
    finally:
        joined.unlink(missing_ok=True)
    print(f"The book is printed: {pdf}, {pdf.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
