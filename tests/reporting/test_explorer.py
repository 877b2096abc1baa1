"""The explorer: what stands in the page, and what a person can do with it in a real browser."""

import json
import re
import shutil
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from lurm.interests.lineage import first_lineage, next_lineage
from lurm.reporting.explorer import Life, Release, explorer_page
from lurm.reporting.scores import summary
from tests.reporting.runs import drift, head, months_from

MONTHS = months_from("2017-01", 4)
N_ANCHORS = 3
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def make_release(n_interests=6, **changes):
    """Interests called "word<n>" on a circle, interest n held by anchor n % 3; two lives."""
    rng = np.random.default_rng(0)
    rows = np.arange(n_interests)
    angle = 2 * np.pi * rows / n_interests
    shares = np.full((n_interests, N_ANCHORS), 0.1, np.float32)
    shares[rows, rows % N_ANCHORS] = 0.8
    near = np.stack([(rows + k) % n_interests for k in (1, 2)], axis=1).astype(np.int32)
    masses = rng.integers(1, 50, (n_interests, len(MONTHS))).astype(float)
    masses[3] = 5000  # the largest
    interests = {
        "interest": pa.array(rows, pa.int32()),
        "n_items": pa.array(rows + 1, pa.int64()),
        "n_behaviors": masses.sum(1).astype(np.int64),
        "n_users": pa.array(rows + 5, pa.int64()),
        "top_words": [[f"word{n}", "tea"] for n in range(n_interests)],
        "top_items": [[f"ITEM {n}"] for n in range(n_interests)],
    }
    places = {
        "interest": pa.array(rows, pa.int32()),
        "x": pa.array(0.5 + 0.5 * np.cos(angle), pa.float32()),
        "y": pa.array(0.5 + 0.5 * np.sin(angle), pa.float32()),
        "neighbors": pa.array(list(near), pa.list_(pa.int32())),
        "anchor_shares": pa.array(list(shares), pa.list_(pa.float32())),
    }
    outputs = {"anchor": pa.array([0, 1, 2] * 5, pa.int32())}
    outputs |= {axis: pa.array(rng.random(15), pa.float32()) for axis in "xy"}
    heads = [head("coffee", {"no": 30, "yes": 20}, auc=0.81)]
    release = Release(
        months=MONTHS,
        through=MONTHS[2],
        interests=pa.table(interests),
        lineage=first_lineage(masses.sum(1) / masses.sum(), MONTHS[2]),
        since_standing=None,
        interest_map=pa.table(places),
        anchor_map=pa.table(outputs),
        masses=masses,
        items=pa.table(
            {"text": ["GREEN TEA", "</script><b>SOAP"], "interest": [1, 2], "n_behaviors": [90, 4]}
        ),
        lives=[
            Life("user 1", 12, 0.61, {MONTHS[0]: {0: 4.0, 1: 1.0}, MONTHS[3]: {4: 7.0}}),
            Life("user 2", 3, 0.2, {MONTHS[1]: {2: 3.0}}),
        ],
        scores=summary(heads, "2017-03-r1-abc"),
        drift={
            month: drift(month, MONTHS[:k], interest_psi=2 if k == 3 else 0)
            for k, month in enumerate(MONTHS)
        },
    )
    return replace(release, **changes)


def scripts(page):
    """The JSON of every script element: what the page draws from, and the lives."""
    found = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    return [json.loads(text) for text in found]


def test_the_page_holds_what_it_draws_from():
    *lives, payload = scripts(explorer_page(make_release()))
    assert [life["name"] for life in lives] == ["user 1", "user 2"]
    assert lives[0]["rows"] == [4, 0, 1]
    assert lives[0]["counts"] == [[0, 0, 0, 7], [4, 0, 0, 0], [1, 0, 0, 0]]
    first, nothing, _, last = lives[0]["anchors"]
    assert sum(first) == pytest.approx(1, abs=0.01)
    assert first[0] > first[1] > first[2]  # interest 0 is met four times, 1 once, 2 never
    assert nothing == [0, 0, 0]
    assert last == [0.1, 0.8, 0.1]
    anchors = np.frombuffer(b64decode(payload["anchor"]), "uint8")
    assert anchors.tolist() == [0, 1, 2, 0, 1, 2]
    trend = np.frombuffer(b64decode(payload["trend"]), "uint8").reshape(6, 4)
    assert (trend.max(1) == 255).all()
    assert payload["anchors"][0]["own"][0] == 3


def test_no_text_of_an_item_ends_the_script_that_holds_it():
    page = explorer_page(make_release())
    assert "</script><b>" not in page
    assert scripts(page)[-1]["items"][1] == "</script><b>SOAP"


def test_births_and_deaths_are_told_after_a_retraining():
    before = make_release()
    kept = np.array([True, True, False, True, True, True])
    shares = np.full(6, 1 / 6)
    lineage = next_lineage(before.lineage, kept, np.ones(6), shares, shares, "2017-04")
    since = {"kept": 5, "born": 1, "retired": 1, "behaviors_kept": 0.91}
    page = explorer_page(replace(before, lineage=lineage, since_standing=since))
    told = " ".join(page[page.index('id="lineage"') :].split())
    assert "5 interests were kept, 1 born and 1 retired; 91% of the behaviors" in told
    assert "6 word2, tea" in told  # the id of the one that was born in row 2
    assert "2, since 2017-03" in told
    assert "all 6 interests are new" in explorer_page(before)


def test_the_same_release_gives_the_same_page_and_a_life_may_be_absent():
    assert explorer_page(make_release()) == explorer_page(make_release())
    page = explorer_page(make_release(lives=[]))
    assert "A life" not in page
    assert "user 1" not in page


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium here: install it to try the page in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        running = player.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def show(browser, tmp_path):
    """Opens a release's page, which may ask for nothing and complain of nothing."""
    asked, said = [], []

    def show(release, at=""):
        (tmp_path / "explorer.html").write_text(explorer_page(release), encoding="utf-8")
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"file://{tmp_path}/explorer.html{at}")
        page.wait_for_selector("html[data-ready=yes]", timeout=20000)
        return page

    yield show
    assert said == []
    assert all(url.startswith(f"file://{tmp_path}/") for url in asked)


def painted(page, canvas):
    """How many pixels of the canvas are neither empty nor white."""
    return page.evaluate(
        """(id) => {
          const c = document.getElementById(id);
          const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
          let n = 0;
          for (let i = 0; i < d.length; i += 4) n += d[i + 3] > 0 && d[i] + d[i + 1] + d[i + 2] < 700;
          return n;
        }""",
        canvas,
    )


def test_the_page_opens_on_the_largest_interest_and_draws_maps_and_a_life(show):
    page = show(make_release())
    assert page.inner_text("#chosen-name") == "word3, tea"
    assert painted(page, "map") > 500
    assert painted(page, "outputs") > 50
    assert page.locator("#life svg circle").count() == 3
    assert "12 behaviors in 3 interests; confidence of the vector 0.61" in page.inner_text(
        "#life-facts"
    )
    page.click("text=user 2")
    assert page.locator("#life svg circle").count() == 1


def test_an_interest_is_found_by_its_words_and_its_neighbors_lead_on(show):
    page = show(make_release())
    page.fill("#search", "word4")
    page.click("#found .link")
    assert page.inner_text("#chosen-name") == "word4, tea"
    assert page.locator("#neighbors .link").all_inner_texts() == ["word5, tea", "word0, tea"]
    page.click("#neighbors .link >> nth=1")
    assert page.inner_text("#chosen-name") == "word0, tea"
    assert page.url.endswith("#interest=0")
    page.fill("#search", "nothing like it")
    assert page.inner_text("#found") == "Nothing has all these words."


def test_an_item_leads_to_its_interest(show):
    page = show(make_release())
    page.fill("#search", "green")
    page.click("#found .link")
    assert page.inner_text("#chosen-name") == "word1, tea"
    assert "GREEN TEA (90 behaviors in training) lies in" in page.inner_text("#chosen")


def test_a_click_on_the_map_chooses_and_a_link_opens_on_an_interest(show):
    page = show(make_release(), "#interest=5")
    assert page.inner_text("#chosen-name") == "word5, tea"
    box = page.locator("#map").bounding_box()
    page.mouse.click(box["x"] + 0.97 * box["width"], box["y"] + 0.5 * box["height"])
    assert page.inner_text("#chosen-name") == "word0, tea"
    page.select_option("#colour", "trend")
    page.mouse.move(box["x"] + 0.03 * box["width"], box["y"] + 0.5 * box["height"])
    assert page.inner_text("#tip").startswith("word3, tea: 20,000 behaviors")


def test_a_hundred_thousand_interests_open_and_answer(show):
    page = show(make_release(100_000))
    assert painted(page, "map") > 10_000
    page.fill("#search", "word77777")
    page.click("#found .link")
    assert page.inner_text("#chosen-name") == "word77777, tea"
