"""The page in a real browser: what a person sees, clicks and types."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from screened_run import talk, verdict, write_run

from letheon.console import Console
from letheon.review.app import make_app
from letheon.review.learn import Learner
from letheon.review.serve import learner_of, listen, open_session
from letheon.review.session import Session
from letheon.run import Run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium to look at the page with: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


class Served:
    """The page of a run, served from a thread."""

    def __init__(self, recipe: Path, audit: int | None = None, blur: bool = False):
        self.run = Run.open(recipe)
        console = Console(quiet=True)
        self.session: Session = open_session(self.run, console, audit)
        self.learner: Learner = learner_of(self.run, self.session, console)
        listener = listen(None)
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        settings = {"run": "run", "normal_below": 0.3, "forget_above": 0.7, "blur": blur}
        app = make_app(self.session, self.learner, token="token", hosts=[host], settings=settings)
        self.url = f"http://{host}/token/"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", http="h11"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.learner.stop()
        self.learner.wait()

    def decisions(self) -> list[tuple[str, str, str | None]]:
        """What the file holds."""
        file = self.run.decisions_file
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [(row["id"], row["decision"], row.get("category")) for row in map(json.loads, lines)]

    def wait_for(self, *decisions: tuple[str, str, str | None]) -> None:
        """Until the file holds these decisions at its end."""
        deadline = time.monotonic() + 5
        while self.decisions()[-len(decisions) :] != list(decisions):
            assert time.monotonic() < deadline, self.decisions()
            time.sleep(0.01)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Served]]:
    monkeypatch.setattr(Learner, "look", lambda self: None)
    running: list[Served] = []

    def start(*arguments: Any, **options: Any) -> Served:
        running.append(Served(*arguments, **options))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def show(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a page; whatever it says on the console or asks of anybody else is a failure."""
    opened: list[Page] = []
    wrong: list[str] = []

    def start(served: Served, **options: Any) -> Page:
        page = browser.new_context(**options).new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request", lambda asked: None if asked.url.startswith((served.url, "data:")) else wrong.append(asked.url)
        )
        page.set_default_timeout(5000)
        opened.append(page)
        page.goto(served.url)
        return page

    yield start
    for page in opened:
        page.context.close()
    assert not wrong


def on_page(page: Page, name: str) -> None:
    expect(page.locator(".card .id")).to_contain_text(re.compile(rf"^{name}\b"))


Serve, Show, Screened = Callable[..., Served], Callable[..., Page], Callable[..., Path]


def test_keys(screened: Screened, serve: Serve, show: Show) -> None:
    served = serve(screened())
    page = show(served)
    on_page(page, "d1")
    expect(page.locator("#progress")).to_have_text("3 of 3 turns still wait for you")
    page.keyboard.press("y")
    on_page(page, "d3")
    page.keyboard.press("n")
    on_page(page, "d4")
    served.wait_for(("d1", "forget", "privacy"), ("d3", "normal", None))
    expect(page.locator("#progress")).to_have_text("1 of 3 turns still waits for you")
    expect(page.locator("#more")).to_have_text("1 forget, 1 normal")
    expect(page.locator("#said")).to_contain_text("Normal. Next: privacy, score 0.60.")
    page.keyboard.press("s")
    on_page(page, "d2")
    page.keyboard.press("u")
    on_page(page, "d4")
    page.keyboard.press("u")
    on_page(page, "d3")
    served.wait_for(("d3", "undone", None))
    page.keyboard.press("Shift+Y")
    on_page(page, "d4")
    page.keyboard.press("Control+y")
    page.keyboard.press("q")
    on_page(page, "d4")
    served.wait_for(("d3", "forget", "privacy"))


def test_a_key_that_is_held_down_decides_once(screened: Screened, serve: Serve, show: Show) -> None:
    served = serve(screened())
    page = show(served)
    on_page(page, "d1")
    for _ in range(5):
        page.keyboard.down("n")
    page.keyboard.up("n")
    served.wait_for(("d1", "normal", None))
    on_page(page, "d3")
    assert len(served.decisions()) == 1


def test_keys_faster_than_the_answers(screened: Screened, serve: Serve, show: Show) -> None:
    served = serve(screened([0.5] * 30))
    page = show(served)
    on_page(page, "d0")
    # Three dialogues are on the page in advance; where none is, a key decides nothing.
    page.keyboard.type("yny")
    on_page(page, "d3")
    served.wait_for(("d0", "forget", "privacy"), ("d1", "normal", None), ("d2", "forget", "privacy"))
    page.keyboard.type("n" * 40)
    expect(page.locator("#more")).to_have_text(re.compile(r"2 forget, \d+ normal"))
    # All that was sent is answered when the page shows the first that is not in the file.
    for _ in range(50):
        names = [name for name, _, _ in served.decisions()]
        if page.locator(".card .id").inner_text() == f"d{len(names)}":
            break
        page.wait_for_timeout(100)
    assert names == [f"d{number}" for number in range(len(names))]
    on_page(page, f"d{len(names)}")


def test_clicks(screened: Screened, serve: Serve, show: Show) -> None:
    served = serve(screened())
    page = show(served)
    page.get_by_role("button", name="Forget").click()
    on_page(page, "d3")
    page.get_by_role("button", name="Normal").click()
    on_page(page, "d4")
    page.get_by_role("button", name="Skip").click()
    on_page(page, "d2")
    for name in ("d4", "d3", "d1"):
        page.get_by_role("button", name="Undo").click()
        on_page(page, name)
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    served.wait_for(("d3", "undone", None), ("d1", "undone", None))


def test_category_is_corrected(screened: Screened, serve: Serve, show: Show) -> None:
    served = serve(screened())
    page = show(served)
    category = page.get_by_label("Forget as")
    expect(category).to_have_value("privacy")
    category.select_option("harmful")
    page.keyboard.press("y")
    served.wait_for(("d1", "forget", "harmful"))
    on_page(page, "d3")
    expect(category).to_have_value("privacy")
    category.select_option("another …")
    another = page.get_by_label("Another category")
    another.type("yonder")
    another.press("Enter")
    on_page(page, "d3")
    page.keyboard.press("y")
    served.wait_for(("d3", "forget", "yonder"))
    on_page(page, "d4")
    expect(category.locator("option", has_text="yonder")).to_have_count(1)


def test_already_decided(screened: Screened, serve: Serve, show: Show) -> None:
    served = serve(screened())
    page = show(served)
    on_page(page, "d1")
    page.keyboard.type("yn")
    page.get_by_role("button", name="Already decided 2").click()
    rows = page.locator(".rows button")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("normal")
    expect(rows.nth(1)).to_contain_text("d1 · privacy, the judges: review")
    page.get_by_label("Decision", exact=True).select_option("forget")
    expect(rows).to_have_count(1)
    rows.nth(0).click()
    on_page(page, "d1")
    expect(page.get_by_role("button", name="Forget")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    expect(rows).to_have_count(1)
    rows.nth(0).click()
    on_page(page, "d1")
    page.keyboard.press("n")
    served.wait_for(("d1", "normal", None))
    expect(page.locator("main")).to_contain_text("No turn fits these filters")
    page.get_by_role("button", name="Show all").click()
    expect(rows).to_have_count(2)
    rows.nth(1).click()
    page.get_by_role("button", name="Put back").click()
    served.wait_for(("d3", "undone", None))
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="To decide 5").click()
    on_page(page, "d3")


def test_a_late_answer_does_not_draw_over_another_tab(screened: Screened, serve: Serve, show: Show) -> None:
    page = show(serve(screened()))
    on_page(page, "d1")
    held: list[Route] = []
    page.route("**/api/decide?*", lambda route: held.append(route))
    with page.expect_request("**/api/decide?*"):
        page.keyboard.press("y")
    page.get_by_role("button", name="Already decided").click()
    held[0].continue_()
    expect(page.locator(".rows button")).to_have_count(1)
    expect(page.locator(".card")).to_have_count(0)
    page.get_by_role("button", name="To decide 5").click()
    on_page(page, "d3")


def test_filters(screened: Screened, serve: Serve, show: Show) -> None:
    page = show(serve(screened()))
    on_page(page, "d1")
    page.get_by_label("Decision", exact=True).select_option(label="normal (2)")
    on_page(page, "d2")
    page.keyboard.press("n")
    on_page(page, "d5")
    page.keyboard.press("n")
    expect(page.locator("main")).to_contain_text("No turn fits these filters")
    page.get_by_role("button", name="Show all").click()
    on_page(page, "d1")


def test_the_whole_dialogue_is_shown_with_the_span_marked(tmp_path: Path, serve: Serve, show: Show) -> None:
    code = 'Use 😀 this:\n\n```python\nphone = "030-1 <b>"\n```\nIt is <i>hers</i>.'
    start = code.index("030-1")
    log = [talk("a", "Who?", "Ann.", "<script>alert(1)</script>", code, "مرحبا", "Bye")]
    verdicts = [
        verdict("a", 0.0),
        verdict("a", 0.6, 3, span=[start, start + 5], reason="phone"),
        verdict("a", 0.1, 5),
    ]
    page = show(serve(write_run(tmp_path, log, verdicts)))
    on_page(page, "a")
    expect(page.locator(".messages li")).to_have_count(6)
    expect(page.locator(".judged h2")).to_have_text("Assistant · the answer to decide on")
    expect(page.locator("pre code")).to_have_text('phone = "030-1 <b>"')
    expect(page.locator("mark")).to_have_text("030-1")
    expect(page.locator(".judged .text")).to_contain_text("It is <i>hers</i>.")
    expect(page.locator(".messages li").nth(2)).to_contain_text("<script>alert(1)</script>")
    assert page.locator(".messages li .text").nth(4).evaluate("e => getComputedStyle(e).direction") == "rtl"
    expect(page.locator(".card h1")).to_contain_text("privacy")
    expect(page.locator(".why")).to_have_text("Judge privacy: phone")
    expect(page.locator(".meter")).to_contain_text("Score 0.60")


def test_a_long_dialogue_starts_at_its_answer(tmp_path: Path, serve: Serve, show: Show) -> None:
    texts = [f"{n} " + "word " * 80 for n in range(60)]
    start = 3000
    answer = "line\n" * 1000
    texts[51] = answer
    log = [talk("a", *texts)]
    span = [start, start + 4]
    verdicts = [
        verdict("a", 0.5 if t == 51 else 0, t, **({"span": span} if t == 51 else {})) for t in range(1, 60, 2)
    ]
    page = show(serve(write_run(tmp_path, log, verdicts)))
    expect(page.locator(".judged")).to_be_in_viewport()
    expect(page.get_by_role("button", name="Forget")).to_be_in_viewport()
    expect(page.locator("mark")).not_to_be_in_viewport()
    page.get_by_role("button", name="to the marked part").click()
    expect(page.locator("mark")).to_be_in_viewport()


def test_blur(screened: Screened, serve: Serve, show: Show) -> None:
    page = show(serve(screened(), blur=True))
    texts = page.locator(".messages")
    expect(page.get_by_role("button", name="Blur texts")).to_have_attribute("aria-pressed", "true")
    expect(texts).to_have_css("filter", "blur(8.8px)")
    expect(texts).to_have_attribute("aria-hidden", "true")
    page.keyboard.press("Space")
    expect(texts).to_have_css("filter", "none")
    # The next one is blurred again.
    page.keyboard.press("n")
    on_page(page, "d3")
    expect(texts).to_have_css("filter", "blur(8.8px)")
    page.get_by_role("button", name="Show this dialogue").click()
    expect(texts).to_have_css("filter", "none")
    page.keyboard.press("s")
    on_page(page, "d4")
    page.keyboard.press("b")
    expect(texts).to_have_css("filter", "none")


def test_audit(screened: Screened, serve: Serve, show: Show, tmp_path: Path) -> None:
    page = show(serve(screened([0.1] * 20 + [0.5]), audit=4))
    expect(page.locator("#progress")).to_have_text("0 of 4 in the random sample labelled")
    expect(page.get_by_role("button", name="Audit 0/4")).to_have_attribute("aria-current", "page")
    for key, number in (("n", 1), ("y", 2), ("n", 3), ("n", 4)):
        page.keyboard.press(key)
        expect(page.locator("#progress")).to_have_text(f"{number} of 4 in the random sample labelled")
    expect(page.locator("main")).to_contain_text("1 of 4 turns called normal should have been forgotten: 25.0%")
    page.keyboard.press("u")
    expect(page.locator(".card")).to_be_visible()
    assert json.loads((tmp_path / "run/audit.json").read_text())["labelled"] == 3


def test_it_says_when_all_is_done(screened: Screened, serve: Serve, show: Show) -> None:
    page = show(serve(screened([0.5, 0.1])))
    on_page(page, "d0")
    page.keyboard.press("y")
    expect(page.locator("#progress")).to_have_text("All 1 turn that waited for you are decided")
    page.keyboard.press("n")
    expect(page.locator("main")).to_contain_text("Nothing is left to decide")
    expect(page.locator("main code")).to_have_text("letheon run run")
    page.get_by_role("button", name="Undo the last").click()
    on_page(page, "d1")


def test_reordered_after_ten_decisions(
    screened: Screened, serve: Serve, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(screened([0.5] * 30))
    page = show(served)
    on_page(page, "d0")
    page.keyboard.type("n")
    on_page(page, "d1")
    # The answer is there, with the next dialogues in the old order.
    expect(page.locator("#more")).to_have_text("0 forget, 1 normal")
    served.session.rescore({1: 0.45, 25: 0.501}, learned_from=10)
    page.keyboard.type("n")
    # The next ones were on the page already; what comes after them is in the new order.
    expect(page.locator("#more")).to_have_text("0 forget, 2 normal · reordered after 10 decisions")
    page.keyboard.type("nn")
    served.session.rescore({25: 0.45}, learned_from=20)
    served.wait_for(("d3", "normal", None))
    page.keyboard.press("s")
    expect(page.locator("#more")).to_contain_text("reordered after 20 decisions")


def test_the_score_of_the_dialogue_on_the_page_is_renewed(screened: Screened, serve: Serve, show: Show) -> None:
    served = serve(screened([0.5] * 30))
    page = show(served)
    on_page(page, "d0")
    page.keyboard.type("n")
    on_page(page, "d1")
    # The answer is there, with the next dialogues in the old order.
    expect(page.locator("#more")).to_have_text("0 forget, 1 normal")
    served.session.rescore({2: 0.8}, learned_from=10)
    page.keyboard.type("n")
    on_page(page, "d2")
    expect(page.locator(".meter")).to_contain_text("Score 0.80, learnt; the judge's 0.50")


def test_what_could_not_be_saved_comes_back(
    screened: Screened, serve: Serve, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(screened())
    page = browser.new_context().new_page()
    page.goto(served.url)
    on_page(page, "d1")

    def full(path: Path, decisions: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("letheon.review.serve.append_decisions", full)
        page.keyboard.press("y")
        expect(page.get_by_role("alert")).to_have_text("not saved: No space left on device")
        on_page(page, "d1")
    page.keyboard.press("y")
    expect(page.get_by_role("alert")).to_be_hidden()
    served.wait_for(("d1", "forget", "privacy"))
    served.stop()
    page.keyboard.press("n")
    expect(page.get_by_role("alert")).to_contain_text("The command that serves this page has ended")
    expect(page.get_by_role("button", name="Normal")).to_be_disabled()
    page.context.close()


def test_focus_is_visible_and_goes_everywhere(screened: Screened, serve: Serve, show: Show) -> None:
    page = show(serve(screened()))
    on_page(page, "d1")
    reached = []
    for _ in range(10):
        page.keyboard.press("Tab")
        name, width = page.evaluate(
            "() => { const e = document.activeElement; return [e.id || e.dataset.tab || e.dataset.filter,"
            " getComputedStyle(e).outlineWidth] }"
        )
        reached.append(name)
        assert width == "2px", name
    order = ["waiting", "decided", "category", "decision", "judge", "blur", "category", "forget", "normal", "skip"]
    assert reached == order


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone(screened: Screened, serve: Serve, show: Show, scheme: str) -> None:
    served = serve(screened())
    page = show(served, color_scheme=scheme, **PHONE)
    on_page(page, "d1")
    # Nothing sticks out sideways, and the buttons are in reach.
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for name in ("Forget", "Normal", "Skip", "Undo"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box is not None
        assert box["height"] >= 40
        assert box["width"] >= 150
        assert box["y"] + box["height"] <= 844
    page.get_by_role("button", name="Normal").tap()
    on_page(page, "d3")
    served.wait_for(("d1", "normal", None))


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data] };
  const light = ([r, g, b]) => { const f = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b) };
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest(".unseen, :disabled, option")) continue;
    let opacity = 1, background = null;
    for (let e = element; e; e = e.parentElement) {
      const behind = rgb(getComputedStyle(e).backgroundColor);
      if (!background && behind[3] === 255) background = behind;
      if (!background) opacity *= getComputedStyle(e).opacity;
    }
    const text = rgb(getComputedStyle(element).color).map((v, i) => opacity * v + (1 - opacity) * background[i]);
    const [a, b] = [light(text), light(background)].sort((x, y) => y - x);
    found[`${element.tagName} ${element.className} ${element.textContent.slice(0, 20)}`] = (a + 0.05) / (b + 0.05);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(tmp_path: Path, serve: Serve, show: Show, scheme: str) -> None:
    log = [talk("a", "Who?", "Ann.", "When?", "At 030-1.", "So?", "No.", expected=["x"])]
    verdicts = [verdict("a", 0.8), verdict("a", 0.5, 3, span=[3, 8], reason="phone"), verdict("a", 0.0, 5)]
    page = show(serve(write_run(tmp_path, log, verdicts), audit=1), color_scheme=scheme)
    on_page(page, "a")
    page.get_by_role("button", name="To decide").click()
    expect(page.locator("mark")).to_be_visible()
    page.keyboard.press("s")
    page.keyboard.press("y")
    page.keyboard.press("u")
    expect(page.locator("#said")).to_have_text("Undone. Next: privacy, score 0.80.")
    expect(page.locator(".later")).to_have_count(4)
    seen = page.evaluate(CONTRAST)
    page.keyboard.press("n")
    page.get_by_role("button", name="Already decided").click()
    expect(page.locator(".rows button")).to_have_count(1)
    seen |= page.evaluate(CONTRAST)
    assert len(seen) > 25
    assert {name: ratio for name, ratio in seen.items() if ratio < 4.5} == {}


def test_ten_thousand_verdicts(screened: Screened, serve: Serve, show: Show) -> None:
    served = serve(screened([(n % 1000) / 1000 for n in range(10_000)]))
    page = show(served)
    expect(page.locator(".card")).to_be_visible()
    sizes: list[int] = []
    page.on("response", lambda answer: sizes.append(len(answer.body())))
    seconds = []
    for number in range(10):
        name = page.locator(".card .id").inner_text()
        begin = time.monotonic()
        page.keyboard.press("n" if number % 2 else "y")
        expect(page.locator(".card .id")).not_to_have_text(name)
        seconds.append(time.monotonic() - begin)
    assert statistics.median(seconds) < 0.5
    expect(page.locator("#more")).to_have_text("5 forget, 5 normal")
    assert sizes
    assert max(sizes) < 10_000
