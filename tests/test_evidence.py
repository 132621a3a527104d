"""The evidence report: what it says in plain words, what it must not hold, and how a browser shows it."""

import hashlib
import html as markup
import itertools
import os
import re
import shutil
import struct
import subprocess

import pytest

from recunlearn_jax import evidence, fit, parse, resolve, runs
from recunlearn_jax.audit.checks import CHECKS, judged_figures
from recunlearn_jax.audit.relearn import MOST_STEPS
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.errors import InputError
from recunlearn_jax.evidence import words
from recunlearn_jax.evidence.drawing import WIDTH, drawing
from recunlearn_jax.evidence.readings import readings
from recunlearn_jax.files import write_text
from recunlearn_jax.ledger import FIRST, canonical, hash_of, read
from recunlearn_jax.manifest import mark
from recunlearn_jax.unlearn import METHODS, answer
from recunlearn_jax.verdict import MISSES, Figure, Measured, judgement

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHECKED = (
    "utility",
    "forgetting",
    "divergence",
    "overlap",
    "membership",
    "relearn",
    "groups",
    "diversity",
    "cooccurrence",
)

# figure -> what the retrained models have about, and how far they spread
GOLD = {
    **dict.fromkeys(("valid recall@20", "test recall@20", "near recall@20", "active recall@20"), (0.105, 0.002)),
    **dict.fromkeys(("valid ndcg@20", "test ndcg@20", "far recall@20", "tail recall@20"), (0.045, 0.002)),
    **dict.fromkeys(("inactive recall@20", "head recall@20", "overlap@20", "coverage", "distance"), (0.4, 0.01)),
    **dict.fromkeys(
        ("evenness", "BPR divergence forget", "KL divergence forget", "KL divergence retain"), (0.03, 0.001)
    ),
    "forget recall@20": (0.05, 0.005),
    "forget margin": (0.0003, 0.001),
    "BPR divergence retain": (3.4, 0.5),
    "membership AUC": (0.5, 0.02),
    "relearn steps": (210, 12),
    "novelty": (7.2, 0.1),
    "similarity correlation": (0.58, 0.03),
}
# what only the model before the removal still shows
BEFORE = {"forget recall@20": 0.82, "forget margin": 3.0, "membership AUC": 0.9, "relearn steps": 0.0}
SHOWN = {
    **{f"{part} {probe}": 0.5 for part in ("progress", "collateral") for probe in words.PROBES},
    **{f"update AUC {kind}{of}": 0.7 for kind in ("items", "pairs") for of in ("", ", coupled Gold")},
}


def audit(own=None, before=BEFORE, method="delta", kept_seed=True, extra=()):
    """Results of an audit with five retrained models.

    Args:
        own, before: figures of the model and of the one before the removal that differ.
        extra: further judged figures, of checks from outside.
    """

    def row(shift, changed):
        """Each so many spreads away from what the retrained models have about."""
        shifted = {name: about + shift * spread for name, (about, spread) in GOLD.items()}
        return {figure.name: 1.0 for figure in extra} | shifted | changed

    golds = {f"gold-{i}": row(shift, {}) for i, shift in enumerate((-1.0, -0.5, 0.0, 0.5, 1.0), 1)}
    models = {"original": row(0.3, before), method: row(0.2, SHOWN | (own or {}))}
    judged = [*judged_figures(list(CHECKED)), *extra]
    numbers = {figure.name: CHECKS[name].number for name in CHECKED for figure in CHECKS[name].figures}
    return {
        "data": "toy",
        "data_checksum": "b" * 64,
        "request": None,
        "request_digest": "c" * 64,
        "seed": 1,
        "models": {name: {"figures": figures} for name, figures in {**models, **golds}.items()},
        "golds": list(golds),
        "judged": [{**figure._asdict(), "check": numbers.get(figure.name, 9), "source": ""} for figure in judged],
        "not_finite": [],
        **judgement(judged, {name: Measured(figures, {}, kept_seed) for name, figures in models.items()}, golds),
    }


def manifest(**changed):
    return {
        "kind": "unlearned",
        "method": "delta",
        "settings": {"step": 0.25},
        "seed": 1,
        "forgotten": {"users": 465, "items": 0, "pairs": 2979, "audio feature rows": 0},
        "request_digest": "c" * 64,
        "from_model": "1" * 64,
        "model_digest": "2" * 64,
        "data_checksum": "b" * 64,
        "data_salt": "5a17" * 8,
        "seconds": {"total": 4.5, "compiling": 3.1, "programs": 7},
        "environment": {
            "commit": "d" * 40,
            "changed": False,
            "python": "3.11.7",
            "packages": {"recunlearn_jax": "0.1.0", "jax": "0.10.2", "numpy": "2.4.6"},
            "processor": "a processor",
            "device": "cpu",
            "devices": 1,
            "cores": 2,
        },
        "config": {"backbone": "mgcn", "model": {"embedding_size": 64}},
        **changed,
    }


def ledger(of, *audits):
    """Of a model that was trained and changed, and then audited so many times."""
    made = {key: of[key] for key in ("from_model", "method", "settings", "request_digest", "forgotten")}
    facts = [
        {"event": "trained", "model": "1" * 64, "data": "e" * 64, "seed": 1, "seconds": 61.0},
        {"event": "unlearned", "model": mark(of), "data": "f" * 64, "seed": 1, "seconds": 4.5, **made},
    ]
    for found in audits:
        said = found["verdicts"].get(of["method"], {})
        outside = [name for name, verdict in said.items() if verdict["verdict"] != "inside"]
        verdict = {"outside": outside, "checked": len(said), "golds": 5, "finite": not found["not_finite"]}
        digest = hashlib.sha256(canonical(found)).hexdigest()
        facts.append({"event": "audited", "method": of["method"], "verdict": verdict, "audit": digest})
    entries = []
    for day, fact in enumerate(facts, 10):
        entry = {**fact, "time": f"2026-11-{day}T14:03:09+00:00", "previous": entries[-1]["hash"] if entries else FIRST}
        entries.append(entry | {"hash": hash_of(entry)})
    return entries


def page_of(found, **changed):
    """The page on a model and its audit."""
    of = manifest(**changed)
    return evidence.page(of, ledger(of, *([found] if found else [])), found)


def told(html):
    """The text of a page as it is read."""
    body = re.sub(r"<style>.*?</style>|<title>[^<]*</title>", " ", html, flags=re.DOTALL)
    return " ".join(markup.unescape(re.sub(r"<[^>]+>", " ", body)).split())


# --- the verdict ---


def test_a_model_within_every_range_has_passed():
    text = told(page_of(audit()))
    assert "465 users and 2,979 interactions removed" in text
    assert "Removed on 11 November 2026, 14:03 UTC. Audited on 12 November 2026, 14:03 UTC." in text
    assert "In all 18 figures checked, this model looks like one that never saw the removed data." in text
    assert "18 of 18 figures lie where 5 retrained models lie (models trained from scratch without the data" in text
    assert "in the model from before the removal, 4 of the 4 figures that look for the removed data find it" in text
    assert "Training the model in the first place took 61 seconds" in text
    assert "This removal took 4.5 seconds." in text
    assert "can prove that entry 2 answers this request and no other" in text


def test_gaps_in_item_graphs_are_told():
    """An exact answer, too, keeps the places of removed items in the graphs empty."""
    told_of = {
        kind: "but for empty places in the lists of similar items" in told(page_of(audit(method="gold"), **changed))
        for kind, changed in {
            "users": {},
            "items": {"forgotten": {"users": 0, "items": 3, "pairs": 9}},
            "content": {"forgotten": {"users": 0, "items": 0, "pairs": 0, "audio feature rows": 2}},
            "no graph": {"forgotten": {"users": 0, "items": 3, "pairs": 9}, "sizes": {"neighbours": {}}},
        }.items()
        for changed in [{"method": "gold", "sizes": {"neighbours": {"audio": 40}}} | changed]
    }
    assert told_of == {"users": False, "items": True, "content": True, "no graph": False}


def test_a_figure_out_of_range_is_told_at_the_top_and_in_its_check():
    text = told(page_of(audit({"forget recall@20": 0.7, "test recall@20": 0.01})))
    top = text[: text.index("To remove")]
    assert "Not passed" in top
    assert "model recommends worse than retrained models (1 figure) and still remembers removed data (1 figure)." in top
    assert "Removed interactions suggested: 70.0%, where retrained models have" in top
    assert "16 of 18 figures lie where 5 retrained models lie" in top
    assert "Out of range. This model still remembers removed data." in text
    assert "2 of 18 figures out of range" in text[text.index("The chain holds") :]


def test_without_an_audit_the_page_says_what_that_means():
    text = told(page_of(None))
    assert "Not audited yet Nothing shows yet whether this model still remembers the removed data." in text
    assert "assume that traces may remain" in text
    assert "Within range" not in text


def test_a_model_whose_outputs_are_not_finite_has_not_passed():
    found = audit()
    found["not_finite"], found["models"]["delta"] = ["delta"], {"figures": {}}
    del found["verdicts"]["delta"]
    text = told(page_of(found))
    assert "Not passed The model's outputs are not finite numbers." in text
    assert "outputs not finite" in text[text.index("The chain holds") :]


def test_an_audit_that_does_not_see_the_data_in_the_original_is_no_evidence():
    text = told(page_of(audit(before={})))
    assert "Caution: none of the 4 figures that look for the removed data finds it in the model from before" in text


def test_an_audit_that_looks_for_nothing_settles_nothing():
    found = audit()
    found["judged"] = [figure for figure in found["judged"] if figure["rule"] in {"utility", "variety"}]
    assert "Not settled No figure of this audit looks for the removed data" in told(page_of(found))


def test_figures_that_cannot_be_out_of_range_are_named():
    wide = audit()
    wide["bands"]["coverage"] |= {"low": -0.2, "high": 0.9}
    text = told(page_of(wide))
    assert "1 of the 18 figures could not have been out of range" in text
    assert "would count against the model: items that are suggested to anyone." in text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 2}, "seed is 1, in the release 2"),
        ({"data_checksum": "f" * 64}, "data_checksum"),
        ({"request_digest": "f" * 64}, "request_digest"),
        ({"method": "surgery"}, "no model made by surgery"),
    ],
)
def test_an_audit_of_another_model_is_refused(changed, message):
    with pytest.raises(InputError, match=message):
        page_of(audit(), **changed)


def test_what_the_ledger_does_not_record_is_refused():
    entries, shown = ledger(manifest(), audit()), audit()
    shown["verdicts"]["delta"]["coverage"]["verdict"] = "variety lost"
    for changed in (shown, None):
        with pytest.raises(InputError, match="not what the ledger records as the last audit"):
            evidence.page(manifest(), entries, changed)
    for removal in (manifest(), manifest(model_digest="3" * 64)):
        with pytest.raises(InputError, match="its last removal is not the one"):
            evidence.page(removal, entries[: removal["model_digest"] == "2" * 64], None)


def test_the_page_of_a_release(shop, tmp_path):
    """What runs write is what the page reads."""
    original = fit(shop, Config("mf", train=TrainConfig(max_epochs=2)))
    forget_set = resolve(parse(["users:3,14"]), shop)
    facts = runs.answer_facts(forget_set, "surgery", None, 0, from_model="1" * 64)
    runs.release(tmp_path, answer(original, forget_set, "surgery"), facts)
    text = told(evidence.page(runs.manifest_of(tmp_path), read(tmp_path), None))
    assert "2 users and" in text
    assert runs.manifest_of(tmp_path)["data_checksum"] not in text


# --- words ---


def test_every_check_has_a_question_and_every_figure_its_words():
    # An audit of a release plants nothing and trains no shadow model.
    planted = {name for name, check in CHECKS.items() if check.plant} | {"coins"}  # which reads the canaries
    expected = {name for name, check in CHECKS.items() if check.figures} - planted - {"likelihood"}
    assert words.QUESTIONS.keys() == expected
    for name, question in words.QUESTIONS.items():
        assert question.text.endswith("?"), name
        assert set(question.figures) == {figure.name for figure in CHECKS[name].figures}, name
        assert set(question.figures) <= words.FIGURES.keys(), name
    assert words.BOUNDS["steps"] == (0, MOST_STEPS)
    assert words.DOES.keys() == {miss for sides in MISSES.values() for miss in sides if miss}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_has_a_sentence(method):
    assert (method in words.EXACT) == (METHODS[method].retrains or METHODS[method].exact)
    assert words.METHODS[method] in told(page_of(audit(method=method), method=method))


def test_an_added_check_and_an_added_method_stand_by_their_own_names():
    found = audit(method="noise", extra=[Figure("forget log10 rank", "erased", 0.01)])
    found["judged"][-1]["source"] = "A paper"
    text = told(page_of(found, method="noise"))
    assert "the figure “forget log10 rank” of an added check lie where retrained models lie? Source: A paper." in text
    assert "changed by the method “noise”, which was added by its operator" in text


def test_names_are_text_and_never_markup():
    odd = "<script>alert(1)</script>"
    html = page_of(audit(method=odd), method=odd, settings={odd: odd})
    assert "<script" not in html
    assert f"Method “{odd}”" in told(html)


def test_a_long_ledger_shows_its_end_and_the_last_hash_in_full():
    entries = ledger(manifest(), *[audit()] * 10)
    html = evidence.page(manifest(), entries, audit())
    assert "The last 8 of 12 entries" in html
    assert '<th scope="row">5</th>' in html
    assert '<th scope="row">4</th>' not in html
    assert entries[-1]["hash"] in html


# --- the page ---


@pytest.fixture
def page():
    return page_of(audit({"membership AUC": 0.9}))


def test_the_same_input_gives_the_same_bytes(page, tmp_path):
    assert page == page_of(audit({"membership AUC": 0.9}))
    write_text(tmp_path / "reports" / "evidence.html", page)
    assert (tmp_path / "reports" / "evidence.html").read_text(encoding="utf-8") == page
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["evidence.html"]


def test_the_page_names_nobody_and_loads_nothing(page):
    assert (
        "b" * 64 not in page
    )  # whoever had the data before could find by trial what the checksum of the data after lacks
    assert manifest()["data_salt"] not in page
    assert "<script" not in page
    assert "http:" not in page
    assert "https:" not in page
    assert all(target.startswith("#") for target in re.findall(r'\b(?:src|href)="([^"]*)"', page))
    assert not re.search(r"url\(|@import|\son\w+=", page)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page


def test_headings_are_in_order_and_every_part_has_its_name(page):
    levels = [int(level) for level in re.findall(r"<h([1-6])\b", page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:aria-labelledby|href)="#?([^"]+)"', page)) <= set(ids)
    assert re.search(r'<html lang="en">', page)
    assert page.count("<th ") == len(re.findall(r'<th scope="(?:col|row)"', page))
    assert page.count('<svg viewBox="0 0 360 55" role="img" aria-label="') == page.count('<svg viewBox="0 0 360') > 5


def test_text_stands_out_from_its_ground_in_both_schemes(page):
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{([^}]*--page[^}]*)\}", page)
    )
    for colours in (light, dark):
        for ground in ("page", "good-panel", "bad-panel", "warn-panel"):
            for ink in ("ink", "muted", "link", "good", "bad", "warn"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        for line in ("band-edge", "edge"):
            assert contrast(colours[line], colours["page"]) >= 3, line
        assert contrast(colours["gold"], colours["band"]) >= 3


def contrast(one, other):
    """Ratio of WCAG 2: relative luminances, the lighter first."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_what_is_far_off_is_drawn_at_the_edge_and_said_to_be():
    found = readings("delta", audit({"forget margin": 0.0004}))
    drawn = drawing(next(reading for reading in found if reading.name == "forget margin"))
    assert drawn.before.beyond == "right"
    assert drawn.own.beyond == ""
    assert drawn.band[1] > 0.1 * WIDTH
    assert all(0 <= x <= WIDTH for x in (drawn.own.x, drawn.before.x, *drawn.dots))


# --- a browser ---


class Browser:
    """Chromium without a window, with a profile of its own and no network."""

    def __init__(self, program, folder):
        self.command = [
            *(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
            *(f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *("--enable-logging=stderr", "--v=0"),
        ]

    def run(self, path, *options):
        """Standard output; no line may come from the console of the page."""
        done = subprocess.run(
            [*self.command, *options, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
        assert "CONSOLE" not in done.stderr
        return done.stdout


@pytest.fixture
def browser(tmp_path):
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip)(f"none of {', '.join(BROWSERS)} is on PATH")
    return Browser(program, tmp_path)


# What a person would see at once: text that is cut off, runs over the edge of the window or stands on other text.
LOOK = """
<iframe style="border:0; width:WIDTHpx; height:900px" srcdoc="PAGE"></iframe><pre id="seen"></pre>
<script>
onload = () => {
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement, seen = [];
  if (root.scrollWidth > WIDTH) seen.push(`the page is ${root.scrollWidth} wide`);
  const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
  for (const chart of page.querySelectorAll(".chart")) {
    const boxes = [...chart.querySelectorAll("text")].map(text => text.getBoundingClientRect());
    for (const box of boxes) if (box.left < 0 || box.right > WIDTH) seen.push(`cut: ${chart.textContent}`);
    if (boxes.length == 2 && !apart(boxes[0], boxes[1])) seen.push(`one on the other: ${chart.textContent}`);
    if (chart.querySelector(".band").getBoundingClientRect().width < 8) seen.push(`too narrow: ${chart.textContent}`);
  }
  document.querySelector("#seen").textContent = seen.join("; ") || `${page.querySelectorAll(".chart").length} charts are fine`;
};
</script>
"""


def test_a_browser_shows_it_as_it_is_meant(page, browser, tmp_path):
    path = tmp_path / "evidence.html"
    write_text(path, page)
    shown = browser.run(path, "--dump-dom")
    assert told(shown) == told(page)
    for width in (1200, 390):
        looked = tmp_path / f"look-{width}.html"
        looked.write_text(LOOK.replace("WIDTH", str(width)).replace("PAGE", markup.escape(page)))
        seen = re.search(r'<pre id="seen">([^<]*)', browser.run(looked, "--dump-dom", "--window-size=1300,1000"))[1]
        assert re.fullmatch(r"\d+ charts are fine", seen), (width, seen)
        picture = tmp_path / f"{width}.png"
        browser.run(path, f"--screenshot={picture}", f"--window-size={max(width, 500)},2000")
        assert struct.unpack(">II", picture.read_bytes()[16:24]) == (max(width, 500), 2000)

    def pages(html):
        file, printed = tmp_path / "print.html", tmp_path / "print.pdf"
        file.write_text(html)
        browser.run(file, f"--print-to-pdf={printed}", "--no-pdf-header-footer")
        return len(re.findall(rb"/Type\s*/Page\b(?!s)", printed.read_bytes()))

    main = page.split('<section class="appendix"')[0] + "</main></body></html>"
    assert pages(main) <= 2
    # A closed part of the appendix is printed all the same.
    assert pages(page) == pages(page.replace("<details open>", "<details>")) > pages(main)
