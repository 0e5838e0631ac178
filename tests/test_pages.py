"""The built book in a real browser: what a reader sees on a laptop, on a phone, and without a network."""

import functools
import http.server
import io
import json
import os
import re
import shutil
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from davidbook.pdf import find_browser
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

if not os.environ.get("DAVID_BOOK"):
    pytest.skip("DAVID_BOOK does not name a built book; `make pages` does", allow_module_level=True)
try:
    BROWSER = find_browser()
except FileNotFoundError as error:
    pytest.skip(str(error), allow_module_level=True)
if not shutil.which("chromedriver"):
    pytest.skip("no chromedriver on the path (Debian: apt-get install chromium-driver)", allow_module_level=True)

ROOT = Path(__file__).parents[1]
BOOK = Path(os.environ["DAVID_BOOK"]).resolve()
PAGES = [path.relative_to(BOOK).as_posix() for path in sorted(BOOK.rglob("*.html")) if "_static" not in path.parts]
NOTEBOOKS = [page for page in PAGES if (BOOK / "_sources" / page).with_suffix(".ipynb").is_file()]
assert NOTEBOOKS, f"DAVID_BOOK={BOOK} holds no book"

each_page = pytest.mark.parametrize("page", PAGES)
each_notebook = pytest.mark.parametrize("page", NOTEBOOKS)

READY = "return document.readyState == 'complete' && (!window.MathJax || !!MathJax.startup?.promise)"
TYPESET = "const done = arguments[0]; (window.MathJax ? MathJax.startup.promise : Promise.resolve()).then(() => done())"
CONTENT = """
const all = (query, get) => [...document.querySelectorAll(query)].map(get);
return {
    text: document.querySelector("article")?.innerText ?? "",
    ids: all("[id]", e => e.id),
    links: all("a[href]", a => a.href),
    formulas: all("article .math", e => e.querySelectorAll("mjx-container svg").length),
    bad_formulas: all("mjx-merror", e => e.textContent),
    tables: all("article table", t => [...t.querySelectorAll("tbody td")].filter(c => c.innerText.trim()).length),
    images: all("img", i => [i.currentSrc, i.complete ? i.naturalWidth : 0]),
}
"""
# Text smaller than 14 px (12 in tables and code), and what sticks out of the screen without a scroll bar of its own.
PHONE = """
const small = [], wide = [], screen = window.innerWidth;
for (const e of document.querySelectorAll("article p, article li, article td, article th, article pre")) {
    const size = parseFloat(getComputedStyle(e).fontSize), least = e.closest("table, pre") ? 12 : 14;
    if (e.innerText.trim() && size < least) small.push(`${size} px: ${e.innerText.slice(0, 40)}`);
}
for (const e of document.querySelectorAll("article img, article table, article pre, article mjx-container")) {
    let held = e;
    while (held && !["auto", "scroll"].includes(getComputedStyle(held).overflowX)) held = held.parentElement;
    const box = (held ?? e).getBoundingClientRect();
    if (box.width && box.right > screen + 1) wide.push(e.outerHTML.slice(0, 80));
}
return {width: document.scrollingElement.scrollWidth, screen, small, wide};
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    """The book on a free port of this machine."""
    handler = functools.partial(Quiet, directory=BOOK)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium that finds no host but this machine."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(flag)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def open_page(browser, url: str) -> dict:
    """What a page holds once it is loaded and its formulas are set; the errors of its console; the hosts it asked."""
    browser.get("about:blank")  # else the page before may still ask for something
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(url)
    WebDriverWait(browser, 30).until(lambda b: b.execute_script(READY))
    browser.execute_async_script(TYPESET)
    found = browser.execute_script(CONTENT)
    found["errors"] = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    found["hosts"] = {urlsplit(one).netloc for one in asked if urlsplit(one).scheme in ("http", "https", "ws", "wss")}
    return found


@pytest.fixture(scope="module")
def look(browser, address):
    """page -> ``open_page`` of it, once; the browser may have moved on since."""
    return functools.cache(lambda page: open_page(browser, address + page))


def screenshot(element) -> np.ndarray:
    """What is seen of an element, uint8 (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB"))


def visible_images(browser):
    """The images of the article that are shown, each scrolled to."""
    for element in browser.find_elements(By.CSS_SELECTOR, "article img"):
        if element.is_displayed():
            browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
            yield element


@each_page
def test_page_opens_without_errors_and_asks_no_other_host(look, address, page):
    found = look(page)
    assert not found["errors"]
    assert found["hosts"] == {urlsplit(address).netloc}


@each_page
def test_formulas_are_set(look, page):
    found = look(page)
    assert all(found["formulas"]) and not found["bad_formulas"]
    assert "\\(" not in found["text"] and "$$" not in found["text"]


@each_page
def test_tables_have_data(look, page):
    found = look(page)
    assert all(found["tables"])
    assert not re.search(r"\|\s*(—|-{3,})\s*\|", found["text"])  # a table that was left as text


@each_page
def test_images_are_loaded_and_not_blank(browser, address, page):
    found = open_page(browser, address + page)
    assert all(width > 0 for _, width in found["images"])
    for element in visible_images(browser):
        assert screenshot(element).std() > 1, element.get_attribute("src")


@each_page
def test_links_and_anchors_resolve(look, address, page):
    broken = []
    for link in look(page)["links"]:
        url = urlsplit(link)
        if link.startswith(address):
            path, anchor = unquote(url.path).lstrip("/"), unquote(url.fragment)
            if not (BOOK / path).is_file() or (anchor and anchor not in look(path)["ids"]):
                broken.append(link)
        elif url.scheme != "https":
            broken.append(link)
    assert not broken


@each_page
def test_page_is_readable_on_a_phone(browser, address, page):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        open_page(browser, address + page)
        found = browser.execute_script(PHONE)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert found["screen"] == 390 and found["width"] <= found["screen"] + 1
    assert not found["small"] and not found["wide"]


def is_animated(address: str, source: str) -> bool:
    """Whether an image of the book has several frames."""
    path = BOOK / unquote(source.removeprefix(address))
    if path.suffix not in (".gif", ".webp", ".png") or not path.is_file():
        return False
    with Image.open(path) as image:
        return getattr(image, "is_animated", False)


def test_animations_move(browser, look, address):
    still, moving = [], 0
    for page in PAGES:
        animated = {source for source, _ in look(page)["images"] if is_animated(address, source)}
        if animated:
            open_page(browser, address + page)
        for element in visible_images(browser) if animated else ():
            if element.get_attribute("src") in animated:
                first, ends, moves = screenshot(element), time.monotonic() + 5, False
                while not moves and time.monotonic() < ends:
                    moves = not np.array_equal(first, screenshot(element))
                moving += moves
                still += [] if moves else [f"{page}: {element.get_attribute('src')}"]
    assert moving and not still


@each_notebook
def test_links_to_the_notebook_point_at_the_right_files(look, address, page):
    links = look(page)["links"]
    places = ("https://github.com/", "https://colab.research.google.com/github/", "https://mybinder.org/v2/gh/")
    for place in places:
        found = [unquote(link) for link in links if link.startswith(place) and link.endswith(".ipynb")]
        assert len(found) == 1, place
        assert (ROOT / "notebooks" / found[0].rpartition("/")[2]).is_file()
    executed = f"{address}_sources/{page.removesuffix('html')}ipynb"
    assert executed in links
    cells = json.loads((BOOK / urlsplit(executed).path.lstrip("/")).read_text())["cells"]
    assert any(cell.get("outputs") for cell in cells)


def test_search_finds_a_page(browser, address):
    browser.get(f"{address}search.html?q=policy")
    results = WebDriverWait(browser, 30).until(lambda b: b.find_elements(By.CSS_SELECTOR, "#search-results li a"))
    assert results[0].get_attribute("href").startswith(address)


@pytest.mark.parametrize("page", ["how-it-works.html", NOTEBOOKS[0]])
def test_page_can_be_read_from_the_disk(browser, page):
    found = open_page(browser, (BOOK / page).as_uri())
    assert not found["errors"] and not found["hosts"]
    assert all(found["formulas"]) and all(width > 0 for _, width in found["images"])
    assert page in NOTEBOOKS or found["formulas"]
