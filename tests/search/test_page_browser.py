"""The page in a real browser: headless Chromium, driven by Playwright."""

import base64
import re
import shutil

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("faiss")

import numpy as np
from page_client import served

from search.coder import code_picture, picture_path, query_coder
from search.opening import create_index, open_index
from search.page_state import Page
from search.store import Coding

api = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine", allow_module_level=True)

DESKTOP, PHONES = (1400, 900), ((390, 844), (320, 600))
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

UNNAMED = """[...document.querySelectorAll("a, button, input, select")].filter((node) =>
    !node.ariaLabel && !node.textContent.trim() && !node.labels?.length).length"""
GIVE = """([data, how]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const held = new DataTransfer();
    held.items.add(new File([bytes], "own.png", { type: "image/png" }));
    const kind = how === "paste" ? ClipboardEvent : DragEvent;
    const field = how === "paste" ? "clipboardData" : "dataTransfer";
    document.body.dispatchEvent(new kind(how, { [field]: held, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def chromium():
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def index(digits):
    return open_index(digits)


@pytest.fixture(scope="module")
def address(digits, index, tmp_path_factory):
    """The address of a page of the digits, and of the same in 8 bits, which no model codes."""
    folder, ids = tmp_path_factory.mktemp("short") / "short", index.select()
    short = create_index(
        folder,
        Coding(
            8,
            image_root=index.coding.image_root,
            class_names=index.coding.class_names,
            class_counts=index.coding.class_counts,
        ),
    )
    short.add(np.ascontiguousarray(index.codes(ids)[:, :1]), index.rows(ids).drop_columns(["id"]))
    with Page([str(digits), str(folder)]) as page, served(page) as client:
        yield f"http://127.0.0.1:{client.port}/"


@pytest.fixture
def open_page(chromium, address):
    """Opens the page at an address; at the end there must be no error on its console."""
    contexts, errors = [], []

    def open_at(target="", size=DESKTOP):
        context = chromium.new_context(viewport=dict(zip(("width", "height"), size, strict=True)))
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on(
            "request",
            lambda each: (
                None if each.url.startswith((address, "blob:")) else errors.append(each.url)
            ),
        )
        tab.goto(address + target)
        tab.wait_for_selector("main[aria-busy]", state="detached")
        tab.wait_for_selector("main .grid li, main .chart svg")
        return tab

    yield open_at
    for context in contexts:
        context.close()
    assert not errors


def shown(tab, number=0):
    """(id, distance) of the images that an index's results show."""
    cards = tab.locator(f"section[aria-labelledby=found_{number}] .card")
    return [
        (
            int(re.search(r"[?&]id=(\d+)", card.get_attribute("href"))[1]),
            int(card.locator(".distance").inner_text().split()[0]),
        )
        for card in cards.all()
    ]


def nearest(index, code, k, without=-1):
    hits = index.search(code, k + 1, "split = 'database'")
    found = zip(hits.ids[0].tolist(), hits.distances[0].tolist(), strict=True)
    return [each for each in found if each[0] != without][:k]


def own_picture(index, item=1600):
    path = picture_path(index, index.rows([item])["path"][0].as_py())
    return path, code_picture(query_coder(index.coding), path)


@pytest.mark.parametrize("how", ["drop", "paste", "choose"])
def test_a_picture_that_is_given_finds_its_nearest(open_page, index, how):
    path, code = own_picture(index)
    tab = open_page()
    if how == "choose":
        tab.set_input_files("#file", path)
    else:
        tab.evaluate(GIVE, [base64.b64encode(path.read_bytes()).decode(), how])
    tab.wait_for_selector("#found_0")
    assert shown(tab) == nearest(index, code, 10)
    assert code.tobytes().hex() in tab.url
    assert tab.locator("#query img").evaluate("image => image.naturalWidth") == 8
    assert "cannot be coded" in tab.locator("section[aria-labelledby=found_1] .error").inner_text()
    assert not tab.locator(".right, .wrong").count()
    tab.go_back()
    tab.wait_for_selector("#start")
    tab.go_forward()
    tab.wait_for_selector("#found_0")
    assert shown(tab) == nearest(index, code, 10)


def test_an_image_is_picked_and_a_result_is_searched_with(open_page, index):
    tab = open_page()
    tab.locator("main .card").first.click()
    tab.wait_for_selector("#found_0")
    first = int(re.search(r"id=(\d+)", tab.url)[1])
    assert shown(tab) == nearest(index, index.codes([first]), 10, first)
    tab.locator("section[aria-labelledby=found_0] .card").nth(2).click()
    tab.wait_for_function("before => !location.search.includes(`id=${before}`)", arg=first)
    tab.wait_for_selector("main[aria-busy]", state="detached")
    second = int(re.search(r"id=(\d+)", tab.url)[1])
    assert shown(tab) == nearest(index, index.codes([second]), 10, second)
    tab.go_back()
    tab.wait_for_function(
        "before => document.querySelector('#query').textContent.includes(`id ${before} `)",
        arg=first,
    )
    assert shown(tab) == nearest(index, index.codes([first]), 10, first)


def test_two_indexes_stand_side_by_side_with_classes_ties_and_verdicts(open_page, index):
    tab = open_page("?id=5&k=12")
    left, right = (tab.locator(f"section[aria-labelledby=found_{number}]") for number in (0, 1))
    assert left.bounding_box()["x"] + left.bounding_box()["width"] <= right.bounding_box()["x"]
    label = index.rows([5])["label"][0].as_py()
    found = nearest(index, index.codes([5]), 12, 5)
    distances = [distance for _, distance in found]
    rows = index.rows([item for item, _ in found]).to_pylist()
    cards = left.locator(".card").all()
    counts = dict(zip(index.coding.class_names, index.coding.class_counts, strict=True))
    for card, row, distance in zip(cards, rows, distances, strict=True):
        classes = card.get_attribute("class").split()
        assert ("tied" in classes) == (distances.count(distance) > 1)
        assert ("right" in classes, "wrong" in classes) == (
            row["label"] == label,
            row["label"] != label,
        )
        assert str(counts[row["label"]]) in card.locator(".size").inner_text()
        assert f"{32 - distance}/32" in card.inner_text()
    sharp = "() => document.querySelectorAll('[aria-labelledby=found_0] img.pixels').length === 12"
    tab.wait_for_function(sharp)  # of 8 x 8 pixels
    right_ones = sum(row["label"] == label for row in rows)
    assert f"{right_ones} of 12" in left.locator(".score").inner_text()
    assert right.locator(".card").count() == 12


def test_filters_narrow_the_search_and_a_wrong_one_is_said(open_page, index):
    tab = open_page("?id=5")
    tab.select_option("#label", "3")
    tab.wait_for_function("() => location.search.includes('label=3')")
    tab.wait_for_selector("main[aria-busy]", state="detached")
    assert {row["label"] for row in index.rows([item for item, _ in shown(tab)]).to_pylist()} == {
        "3"
    }
    tab.fill("#k", "4")
    tab.fill("#where", "id >= 100")
    tab.press("#where", "Enter")
    tab.wait_for_function("() => location.search.includes('where=')")
    tab.wait_for_selector("main[aria-busy]", state="detached")
    assert len(shown(tab)) == 4
    assert all(item >= 100 for item, _ in shown(tab))
    tab.click("#clear")
    tab.wait_for_function("() => !location.search.includes('label')")
    tab.wait_for_selector("main[aria-busy]", state="detached")
    assert shown(tab) == nearest(index, index.codes([5]), 10, 5)


def test_a_wrong_condition_is_one_line_at_its_field(chromium, address):
    context = chromium.new_context()
    tab = context.new_page()
    tab.goto(f"{address}?view=browse&where=label")
    tab.wait_for_selector("#where_error")
    assert "filter 'label' ends" in tab.locator("#where_error").inner_text()
    assert tab.locator("#where").get_attribute("aria-invalid") == "true"
    context.close()


def test_the_classes_are_drawn_from_head_to_tail_with_map(open_page, index):
    tab = open_page("?view=classes")
    heights = [float(bar.get_attribute("height")) for bar in tab.locator(".bar").all()]
    assert len(heights) == 10
    assert heights == sorted(heights, reverse=True)
    assert tab.locator(".series_0 circle").count() == 10
    assert tab.locator(".series_1 path").count() == 10
    tab.locator(".all summary").click()
    rows = [row.inner_text().split("\t") for row in tab.locator(".all tbody tr").all()]
    counts = dict(zip(index.coding.class_names, index.coding.class_counts, strict=True))
    assert {row[0]: int(row[1]) for row in rows} == counts
    tab.locator(".all tbody a").first.click()
    tab.wait_for_selector("#browse")
    assert tab.locator("#label").input_value() == rows[0][0]


@pytest.mark.parametrize("size", PHONES)
@pytest.mark.parametrize("target", ["", "?id=5&k=20", "?view=browse", "?view=classes"])
def test_on_a_phone_nothing_lies_beside_the_screen(open_page, size, target):
    tab = open_page(target, size)
    assert tab.evaluate("document.documentElement.scrollWidth") <= size[0]
    for link in tab.locator("#views a").all():
        box = link.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size[0]


def test_it_is_used_by_keyboard_alone(open_page, index):
    tab = open_page()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.locator("main .card").nth(1).focus()
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#found_0")
    assert shown(tab)
    assert tab.evaluate("document.activeElement.id") == "found_0"
    names = [card.get_attribute("aria-label") for card in tab.locator("#main .card").all()]
    assert all(re.match(r"Rank \d+: .+, distance \d+ of (32|8) bits", name) for name in names)
    assert tab.locator("#status").inner_text() == "10 images found"
    assert tab.evaluate(UNNAMED) == 0
