"""Tables of how well is forgotten: docs/forgetting.md, docs/evidence.md, docs/unlearning.md and the pages of the checks."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from committed import RESULTS, every, titled, written
from forgetting import CASES

from recunlearn_jax import report, results
from recunlearn_jax.audit import CHECKS
from recunlearn_jax.files import read_json
from recunlearn_jax.results import figure_of

_ABLATION = (
    ("valid Recall@20", "valid recall@20", "{:.4f}"),
    ("test Recall@20", "test recall@20", "{:.4f}"),
    ("forget Recall@20", "forget recall@20", "{:.4f}"),
    ("divergence to Gold, forget", "BPR divergence forget", "{:.3g}"),
    ("retain", "BPR divergence retain", "{:.3g}"),
    ("canary rank", "canary median rank", "{:.0f}"),
    ("lowest tenth", "canary lowest tenth", "{:.0f}"),
    ("similarity correlation", "similarity correlation", "{:.3f}"),
)

_Models = list[dict[str, Any]]
_SHOWN = ("delta", "surgery", "mmrecun")
_EACH = " / ".join(_SHOWN)
_PROBES = ("similarities", "affected scores", "retained pairs")


def ablation(name: str) -> str:
    """One row a variation of delta or mmrecun, or a setting of another method."""
    models = results.read(RESULTS / f"{name}.json")["models"]
    columns = [c for c in _ABLATION if any(figure_of(row, c[1]) is not None for row in models.values())]
    probes = [p for p in _PROBES if any(figure_of(row, f"progress {p}") is not None for row in models.values())]
    rows = []
    for variation, row in models.items():
        found = [(figure_of(row, figure), form) for _, figure, form in columns]
        shown = ["-" if x is None else form.format(x) for x, form in found]
        rows.append((variation, *shown, *(_pair(row, probe) for probe in probes)))
    effects = (f"{probe}: progress / collateral" for probe in probes)
    return written(["variation", *(title for title, _, _ in columns), *effects], rows)


def _audits() -> Iterator[tuple[str, dict[str, Any], _Models, _Models]]:
    """Each audit: its name, its result, its Golds, and the methods that are shown."""
    for case in CASES:
        result = results.read(RESULTS / f"forgetting_{case}.json")
        golds, answers = ([result["models"][name] for name in names] for names in (result["golds"], _SHOWN))
        version = titled(result, "delta").removeprefix("delta")
        name = f"{result['data']}, {_asked(result['request'])}, seed {result['request']['seed']}{version}"
        yield name, result, golds, answers


def counted() -> str:
    """The audits in numbers: how many delta passes and others do, by the number of Golds and the version of delta."""
    groups: dict[str, list[tuple[dict[str, Any], _Models, _Models]]] = {
        "8 or 16 Golds": [],
        "2 or 3 Golds": [],
        "2 or 3 Golds, an earlier delta": [],
    }
    for name, result, golds, answers in _audits():
        many = "8 or 16 Golds" if len(golds) in (8, 16) else "2 or 3 Golds"
        groups[many + (", an earlier delta" if name.endswith("earlier") else "")].append((result, golds, answers))
    groups["all"] = [audit for group in list(groups.values()) for audit in group]
    rows = []
    for name, group in groups.items():
        own = [result["misses"]["delta"] for result, _, _ in group]
        others = [
            result["misses"][method] for result, _, _ in group for method in result["settings"] if method != "delta"
        ]
        ranks = [
            [row["figures"]["canary median rank"] for row in (answers[0], *golds)]
            for result, golds, answers in group
            if "canary" in result["planted"]
        ]
        outside = sum(not min(among) <= rank <= max(among) for rank, *among in ranks)
        rows.append(
            (
                name,
                f"{own.count(0)} of {len(own)}",
                sum(own),
                f"{others.count(0)} of {len(others)}",
                f"{min(others)} to {max(others)}",
                f"{outside} of {len(ranks)}",
            )
        )
    header = ("delta passes", "its figures outside", "other answers pass", "their figures outside, each")
    return written(("judged by", *header, "canary median of delta outside the Golds' range"), rows)


def traces() -> str:
    """What delta leaves in every case, beside surgery, mmrecun and the range of the Golds."""
    rows = [
        (
            name,
            " / ".join(str(result["misses"][method]) for method in _SHOWN),
            _with_tenth(*(_span(golds, f"canary {what}", "{:.0f}") for what in ("median rank", "lowest tenth"))),
            " / ".join(canaries([row]) for row in answers),
            _span(golds, "forget recall@20", "{:.4f}"),
            _each(answers, "forget recall@20", "{:.4f}"),
        )
        for name, result, golds, answers in _audits()
    ]
    header = [f"figures outside: {_EACH}", "canary rank (tenth): Golds", _EACH, "forget Recall@20: Golds", _EACH]
    return written(("case", *header), rows)


def nearness() -> str:
    """How much delta does of what retraining does, and its membership test beside surgery's, mmrecun's and the Golds'."""
    rows = [
        (
            name,
            *(_pair(answers[0], probe) for probe in ("similarities", "affected scores", "forgotten pairs")),
            _span(golds, "membership AUC", "{:.3f}"),
            _each(answers, "membership AUC", "{:.3f}"),
        )
        for name, _, golds, answers in _audits()
    ]
    header = ["delta: similarities", "affected scores", "forgotten pairs", "membership AUC: Golds", _EACH]
    return written(("case", *header), rows)


def _asked(request: dict[str, Any]) -> str:
    """A request of shares in the words of the command line."""
    words = [f"{kind}:{request[kind]}" for kind in ("users", "items", "pairs") if request[kind]]
    for name, share in request["modality"].items():
        words.append(f"modality:{name}" + ("" if share == "all" else f":{share}"))
    return " ".join(words)


def _span(golds: Sequence[dict[str, Any]], figure: str, form: str) -> str:
    """A figure from the lowest to the highest Gold; a dash where it is not measured."""
    found = [x for row in golds if (x := figure_of(row, figure)) is not None]
    return f"{form.format(min(found))} to {form.format(max(found))}" if found else "-"


def _with_tenth(median: str, tenth: str) -> str:
    return median if median == "-" else f"{median} ({tenth})"


def _each(models: Sequence[dict[str, Any]], figure: str, form: str) -> str:
    """A figure of some models; a dash where it is not measured."""
    found = [figure_of(row, figure) for row in models]
    return "-" if None in found else " / ".join(form.format(x) for x in found)


def forgetting(begins: str = "") -> str:
    """Every method of the cases that begin so: what it changed against the coupled Golds, what is left, and what it cost."""
    header = (
        *(
            "case",
            "method",
            "similarities",
            "affected scores",
            "other scores",
            "forgotten pairs",
            "overlap with coupled Gold",
        ),
        *("canary median (tenth)", "forget Recall@20", "membership AUC", "valid / test Recall@20, % of Golds'"),
        *("figures outside", "seconds"),
    )
    rows = []
    for rest, result in every(RESULTS, f"forgetting_{begins}"):
        case = begins + rest + ("" if result["environment"]["device"] == "cpu" else ", on a GPU")
        models, golds = result["models"], [result["models"][name] for name in result["golds"]]
        aims = {
            figure: np.mean([row["figures"][figure] for row in golds])
            for figure in ("forget recall@20", "valid recall@20", "test recall@20")
        }
        inside = [figure_of(row, "membership AUC") for row in golds]
        alarms = result["false_alarms"]
        rows.append(
            (
                *(f"**{case}**", f"Gold, mean of {len(golds)}", "1 / 0", "1 / 0", "1 / 0", "1 / 0", "1"),
                canaries(golds),
                f"{aims['forget recall@20']:.4f}",
                "-" if None in inside else f"{np.mean([x for x in inside if x is not None]):.3f}",
                "100 / 100",
                "-" if alarms is None else f"{alarms['verdicts'] / len(golds):.1f}",
                f"{np.median([row['seconds']['running'] for row in golds]):.0f}",
            )
        )
        for name in results.methods_of(result):
            if name.endswith("original"):
                continue
            row = models[name]
            overlap, member = figure_of(row, "overlap@20 with coupled Gold"), figure_of(row, "membership AUC")
            kept = [figure_of(row, f"{split} recall@20") for split in ("valid", "test")]
            rows.append(
                (
                    *("", titled(result, name)),
                    *(
                        _pair(row, probe)
                        for probe in ("similarities", "affected scores", "other scores", "forgotten pairs")
                    ),
                    "-" if overlap is None else f"{overlap:.3f}",
                    canaries([row]),
                    f"{figure_of(row, 'forget recall@20'):.4f}",
                    "-" if member is None else f"{member:.3f}",
                    " / ".join(
                        f"{100 * x / aims[f'{split} recall@20']:.0f}"
                        for x, split in zip(kept, ("valid", "test"), strict=True)
                        if x is not None
                    ),
                    str(result["misses"][name]),
                    f"{row['seconds']['running']:.2g}",
                )
            )
    return written(header, rows)


def _pair(row: dict[str, Any], probe: str) -> str:
    """Progress / collateral of a model on a set of probes."""
    found = [figure_of(row, f"{part} {probe}") for part in ("progress", "collateral")]
    return "-" if None in found else " / ".join(f"{x:.2f}" for x in found if x is not None)


def canaries(rows: Sequence[dict[str, Any]]) -> str:
    """Median rank of the canaries, and the lowest tenth, as means of some models; a dash where none were planted."""
    ranks = [[figure_of(row, f"canary {what}") for what in ("median rank", "lowest tenth")] for row in rows]
    if any(None in of for of in ranks):
        return "-"
    median, tenth = np.mean(np.array(ranks, float), axis=0)
    return f"{median:.0f} ({tenth:.0f})"


def replay() -> str:
    """What a replay differs by from the original."""
    result = read_json(RESULTS / "replay_tiktok.json")
    rows = []
    for name, row in result["rows"].items():
        equal = "; equal to the bit" if row.get("bits equal") else ""
        rows.append(
            (
                _replayed(name),
                row["pairs"],
                f"{row['overlap@20']:.4f}{equal}",
                f"{row['BPR divergence retain']:.3g}",
            )
        )
    return written(
        ("tiktok", "pairs removed", "overlap@20 with the original", "BPR divergence on retained pairs"), rows
    )


def _replayed(name: str) -> str:
    if name == "another seed":
        return name
    return "replay, nothing removed" if name == "nothing" else f"replay without {name}".replace("1 pairs", "1 pair")


def last_epochs() -> str:
    """What exact training without the forgotten pairs reaches where it begins late."""
    result = read_json(RESULTS / "replay_tiktok.json")
    probes = ("similarities", "affected scores", "other scores", "retained pairs")
    rows = [
        (f"last {last} of {result['epochs']} epochs", *(_pair({"figures": row}, p) for p in probes))
        for last, row in result["last epochs"].items()
    ]
    return written(("tiktok, users:5%", *probes), rows)


def additivity() -> str:
    """The effects of parts of a request, added up, against the effect of the whole."""
    result = read_json(RESULTS / "additivity_tiktok.json")
    probes = ("similarities", "affected scores", "other scores", "retained pairs")
    rows = [
        (
            "" if i else word,
            parts if parts == "delta" else f"sum of {parts} parts",
            *(_pair({"figures": row}, p) for p in probes),
        )
        for word, by_parts in result["rows"].items()
        for i, (parts, row) in enumerate(by_parts.items())
    ]
    return written(("tiktok", "", *probes), rows)


def partners() -> str:
    """How much of a row's change delta's equation meets, by whose rows its partners have."""
    rows = []
    for case, row in read_json(RESULTS / "partners.json")["rows"].items():
        kinds = [kind for kind in ("users", "items") if f"{kind} from original" in row]
        for i, kind in enumerate(kinds):
            met = (f"{row[f'{kind} from {model}']:.2f}" for model in ("original", "delta", "coupled Gold"))
            rows.append(("" if i else case, kind, *met))
    return written(
        ("case", "rows of", "partners as before", "partners of delta's answer", "partners of the coupled Gold"), rows
    )


def training_length() -> str:
    """`delta` on one training that was stopped at several epochs, beside the coupled Gold of each."""
    probes = ("similarities", "affected scores", "forgotten pairs")
    rows, result = [], read_json(RESULTS / "training_length_tiktok.json")
    for epochs, models in result["rows"].items():
        strengths = result["strengths"][epochs]
        measured = f"delta (lambda {strengths['users']:.2f} of users, {strengths['items']:.2f} of items)"
        for i, (name, row) in enumerate(models.items()):
            ranks = [row[f"canary {what}"] for what in ("median rank", "lowest tenth")]
            rows.append(
                (
                    "" if i else epochs,
                    measured if name == "delta" else name,
                    *(_pair({"figures": row}, probe) for probe in probes),
                    f"{ranks[0]:.0f} ({ranks[1]:.0f})",
                    f"{row['forget recall@20']:.3f}",
                    f"{row['membership AUC']:.3f}",
                )
            )
    return written(("epochs", "", *probes, "canary median (tenth)", "forget Recall@20", "membership AUC"), rows)


def sequence() -> str:
    """One request for all against twenty in a row."""
    result = read_json(RESULTS / "sequence_tiktok.json")
    rows = []
    for name, model in result["models"].items():
        row = model["figures"]
        ranks = [row[f"canary {what}"] for what in ("median rank", "lowest tenth")]
        rows.append(
            (
                *(name, *(_pair(model, probe) for probe in ("similarities", "affected scores", "other scores"))),
                f"{row['overlap@20 with coupled Gold']:.3f}",
                f"{ranks[0]:.0f} ({ranks[1]:.0f})",
                f"{row['relearn steps']:.0f}" if "relearn steps" in row else "-",
                f"{row['valid recall@20']:.4f} / {row['test recall@20']:.4f}",
            )
        )
    header = ("tiktok, users:5%", "similarities", "affected scores", "other scores", "overlap with coupled Gold")
    return written((*header, "canary median (tenth)", "relearn steps", "valid / test Recall@20"), rows)


def instruments() -> str:
    """How clearly BPR and KL divergence tell the original and surgery from Gold, in units of the distance between Golds."""
    rows = []
    for case, result in every(RESULTS, "forgetting_"):
        models = result["models"]
        if len(result["golds"]) < 3:  # their distances have no spread
            continue
        for figure in (f"{kind} divergence {side}" for side in ("forget", "retain") for kind in ("BPR", "KL")):
            instrument, _, side = figure.split(" ")
            between = [models[gold]["figures"][figure] for gold in result["golds"]]
            mean, spread = float(np.mean(between)), float(np.std(between, ddof=1))
            own = [models[name]["figures"][figure] for name in ("original", "surgery")]
            told = (f"{x / mean:.3g} times, {(x - mean) / spread:+.3g} sd" for x in own)
            rows.append((case, side, instrument, f"{mean:.3g} +- {spread:.2g}", *told))
    return written(("case", "side", "instrument", "between Golds, mean and sd", "original", "surgery"), rows)


def likelihood() -> str:
    """U-LiRA on every method, and the same attack on each Gold."""
    rows = []
    for kind, result in every(RESULTS, "likelihood_"):
        for name in results.methods_of(result):
            cells = []
            for figure in ("likelihood ratio AUC", "likelihood ratio TPR at 1% FPR", "membership AUC"):
                band = result["bands"].get(f"{name}/{figure}") or result["bands"][figure]
                inside = f"{band['mean']:.3f}, {max(band['low'], 0):.3f} to {band['high']:.3f}"
                cells += [f"{figure_of(result['models'][name], figure):.3f}", "-" if name == "original" else inside]
            rows.append((f"{kind}:5%", titled(result, name), *cells))
    beside = "Golds under the same attack: mean, band"
    attack = ("AUC", beside, "true positives at 1 % false ones", beside)
    return written(("request", "model", *attack, "membership AUC, without shadows", "Golds: mean, band"), rows)


RULES = {
    "utility": "less is a miss",
    "variety": "less is a miss",
    "remembered": "more is under-forgotten, less over-forgotten",
    "erased": "less is under-forgotten, more over-forgotten",
    "distance": "more than between Golds is a miss",
    "likeness": "less than between Golds is a miss",
}
READS = {
    "rows": "output rows",
    "params": "parameters",
    "golds": "output rows, beside each Gold's",
    "replays": "output rows, beside the coupled Golds'",
    "method": "the method, which is run again",
}


def check(name: str) -> str:
    """What a check judges, by which rule, and where it comes from."""
    found = CHECKS[name]
    rows = [(figure.name, RULES[figure.rule], f"{figure.resolution:g}") for figure in found.figures]
    table = written(("judged figure", "outside Gold's band", "smallest excess that counts"), rows) if rows else ""
    facts = [f"Number {found.number} of the audit. It reads {READS[found.needs]}."]
    facts += ["It is measured in every comparison."] if found.usual else ["It is measured with `--audit`."]
    facts += [f"It plants users: `--plant {name}=NUMBER`."] if found.plant else []
    facts += [f"Source: {found.source}."] if found.source else []
    facts += [] if rows else ["Its figures are shown and not judged."]
    return f"{table}\n{' '.join(facts)}\n"


def stream() -> str:
    """A replay of Sports."""
    return report.stream_markdown(read_json(RESULTS / "stream_sports.json"))


def demo() -> str:
    """The columns of the demo's table that tell its story."""
    found = results.read(RESULTS / "demo_toy.json")
    header, rows = report.rows(found)
    wanted = (
        "model",
        "test Recall@20",
        "forget Recall@20",
        "canary rank",
        "progress",
        "collateral",
        "preparation s",
        "seconds",
        "speed-up",
    )
    places = [header.index(name) for name in wanted]
    shown = [[row[place] for place in places] for row in rows if "band" not in row[0]]
    return f"**{report.heading(found)}**\n\n" + written(wanted, shown)
