"""The page in a real browser, without a window."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest

import testbed
import theory
from testbed import drift

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def address():
    command = [sys.executable, "-m", "testbed", "explore", "--no-browser", "--port", "0"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    pytest.importorskip("playwright", reason="no playwright to drive the browser with")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield re.search(r"http://\S+", process.stdout.readline()).group()
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser, address):
    """A page that may ask this server alone and must not complain."""
    opened, complaints = browser.new_page(viewport={"width": 1280, "height": 800}), []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "request",
        lambda request: None if request.url.startswith((address, "data:", "blob:")) else complaints.append(request.url),
    )
    yield opened
    opened.close()
    assert complaints == []


def rows(page):
    page.wait_for_selector("#cell-0-bias")
    return [
        [cell.inner_text() for cell in row.query_selector_all("td")]
        for row in page.query_selector_all("#table tbody tr")
    ]


def expected(environment, options, kl, weights, signal, batch):
    made = testbed.environment(environment, **options)
    pair = drift.at("noise", made.process, made.target, kl=kl)
    found = []
    for weight in weights:
        m = theory.moments(made.process, pair.target, pair.behaviour, theory.Estimator(weight, signal))
        length = float((m.gradient @ m.gradient) ** 0.5)
        numbers = [
            m.relative_bias,
            m.cosine,
            m.effective_step,
            m.variance**0.5 / length,
            m.mean_squared_error(batch) / length**2,
        ]
        found.append(["0" if abs(x) < 1e-10 else f"{x:.4g}" for x in numbers])
    return found


DEFAULT = ("none", "token", "prefix", "minpro", theory.weight("minpro", clip=(0.8, 1.28)))


def test_the_page_shows_the_numbers_of_theory(page, address):
    page.goto(address)
    shown = [row[2:7] for row in rows(page)]
    assert shown == expected("token_tree", {}, 0.1, DEFAULT, "target_advantage", 256)
    assert shown != expected("token_tree", {}, 0.11, DEFAULT, "target_advantage", 256)  # the control
    page.wait_for_function(
        "() => ['spread', 'causes', 'error', 'positions'].every("
        "name => document.querySelector(`#chart-${name} .main-svg`) !== null)"
    )
    buttons = page.eval_on_selector_all(".modebar-btn", "found => found.map(b => b.getAttribute('aria-label'))")
    assert set(buttons) == {"Download plot as a PNG"}  # nothing that would send a chart elsewhere
    assert page.query_selector("#notes").inner_text() == ""


def test_a_control_changes_the_numbers_and_the_address(page, address):
    page.goto(address)
    before = rows(page)
    began = time.perf_counter()
    page.fill("#length", "4")
    page.keyboard.press("Enter")
    page.wait_for_function("text => document.querySelector('#cell-0-bias').innerText != text", arg=before[0][2])
    assert time.perf_counter() - began < 5.0  # a stuck page; what it takes is measured elsewhere
    assert [row[2:7] for row in rows(page)] == expected(
        "token_tree", {"depth": 4}, 0.1, DEFAULT, "target_advantage", 256
    )
    assert "options=depth=4" in page.url
    # The keyboard reaches a slider, and the address keeps both changes.
    page.focus("#kl [role=slider]")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => location.search.includes('kl=')")
    kl = float(re.search(r"kl=([\d.]+)", page.url).group(1))
    assert kl == 0.15
    page.wait_for_function("text => !document.querySelector('#facts').innerText.includes(text)", arg="KL(μ‖π) = 0.1 ")
    assert [row[2:7] for row in rows(page)] == expected(
        "token_tree", {"depth": 4}, kl, DEFAULT, "target_advantage", 256
    )


def test_two_controls_moved_at_once_are_both_heard(page, address):
    page.goto(address)
    rows(page)
    # Both before any answer: the second must not undo the first.
    page.route("**/_dash-update-component", lambda route: (time.sleep(0.3), route.continue_()))
    page.fill("#length", "4")
    page.keyboard.press("Enter")
    page.fill("#low", "0.5")
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.search.includes('clip=0.5') && location.search.includes('depth=4')")
    page.wait_for_function("() => document.querySelector('#table').innerText.includes('clip=(0.5')")
    weights = (*DEFAULT[:4], theory.weight("minpro", clip=(0.5, 1.28)))
    wanted = expected("token_tree", {"depth": 4}, 0.1, weights, "target_advantage", 256)
    assert [row[2:7] for row in rows(page)] == wanted
    assert (page.input_value("#length"), page.input_value("#low")) == ("4", "0.5")


def test_a_clip_below_one_still_has_a_page(page, address):
    page.goto(address)
    rows(page)
    page.fill("#high", "0.9")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#table').innerText.includes('clip=(0.8, 0.9)')")
    weights = (*DEFAULT[:4], theory.weight("minpro", clip=(0.8, 0.9)))
    assert [row[2:7] for row in rows(page)] == expected("token_tree", {}, 0.1, weights, "target_advantage", 256)


def test_controls_have_names_and_a_dropdown_works_by_keyboard(page, address):
    page.goto(address)
    rows(page)
    named = ("environment", "length (depth)", "other options", "drift", "drift's options", "weights", "clip: low",
             "clip: high", "signal", "KL(μ‖π): 0.1 nats per token", "batch size: n = 256 trajectories")  # fmt: skip
    for name in named:
        assert page.get_by_role("group", name=name, exact=True).count() == 1, name
    page.get_by_role("group", name="environment", exact=True).get_by_role("button").focus()
    page.keyboard.press("Enter")
    # It opens late where the machine has other work, with the chosen one in focus; arrows lead to the others.
    page.wait_for_function("() => document.activeElement.value === 'token_tree'")
    while (now := page.evaluate("document.activeElement.value")) != "parity":
        page.keyboard.press("ArrowUp")
        page.wait_for_function("value => document.activeElement.value !== value", arg=now)
    page.keyboard.press("Space")
    page.wait_for_function("() => location.search.includes('environment=parity')")
    page.wait_for_function("() => document.querySelector('#facts').innerText.includes('T = 10')")
    assert [row[2:7] for row in rows(page)] == expected("parity", {}, 0.1, DEFAULT, "target_advantage", 256)


def test_it_fits_a_narrow_window(page, address):
    page.set_viewport_size({"width": 420, "height": 800})
    page.goto(address)
    rows(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert not page.locator("#cell-0-engine").is_visible()  # what is wanted first has room
    assert page.locator("#cell-0-bias").is_visible()


def test_the_charts_draw_the_numbers_of_theory(page, address):
    page.goto(address)
    rows(page)
    drawn = """name => document.querySelector(`#chart-${name} .js-plotly-plot`)._fullData.map(
        trace => ({name: trace.name, x: Array.from(trace.x), y: Array.from(trace.y)}))"""
    page.wait_for_function("() => document.querySelector('#chart-causes .main-svg .bars') !== null")
    made = testbed.environment("token_tree")
    pair = drift.at("noise", made.process, made.target, kl=0.1)
    three = (made.process, pair.target, pair.behaviour)
    m = {w: theory.moments(*three, theory.Estimator(w, "target_advantage")) for w in ("token", "minpro")}
    length = sum(m["token"].gradient ** 2) ** 0.5
    bias, spread = page.evaluate(drawn, "spread")
    errors = {trace["name"]: trace for trace in page.evaluate(drawn, "error")}
    causes = {t["name"]: dict(zip(t["y"], t["x"], strict=True)) for t in page.evaluate(drawn, "causes")}
    for weight, found in m.items():
        place = bias["y"].index(weight)
        assert bias["x"][place] == pytest.approx(found.relative_bias, rel=1e-6)
        assert spread["x"][place] == pytest.approx(found.variance**0.5 / length, rel=1e-6)
        for n, y in list(zip(errors[weight]["x"], errors[weight]["y"], strict=True))[::40]:
            assert y == pytest.approx(found.relative_bias**2 + found.variance / n / length**2, rel=1e-6)
        parts = theory.decompose(*three, theory.Estimator(weight, "target_advantage"))
        assert causes["occupancy"][weight] == pytest.approx(sum(parts["occupancy"] ** 2) ** 0.5 / length, rel=1e-6)
        assert causes["the whole bias"][weight] == pytest.approx(found.relative_bias, rel=1e-6)
    # The control: the two weights have other numbers.
    assert m["token"].relative_bias != pytest.approx(m["minpro"].relative_bias, rel=1e-2)


def test_a_shared_address_shows_the_same(page, browser, address):
    query = "?environment=parity&options=horizon=6&kl=0.05&weights=token;prefix&signal=outcome&batch=1024"
    page.goto(address + query)
    shown = [row[2:7] for row in rows(page)]
    assert shown == expected("parity", {"horizon": 6}, 0.05, ("token", "prefix"), "outcome", 1024)
    again = browser.new_page()
    again.goto(page.url)
    assert [row[2:7] for row in rows(again)] == shown
    again.close()


def test_nonsense_in_the_address_is_a_sentence_on_the_page(page, address):
    page.goto(f"{address}?weights=tokens&batch=64")
    assert len(rows(page)) == 5
    assert "nearest known name is 'token'" in page.query_selector("#notes").inner_text()
    assert "n = 64" in page.query_selector("#table thead").inner_text()
