"""What methods, figures, checks and verdicts are called on the page, for a reader who is not an engineer."""

import math
from typing import Literal, NamedTuple

METHODS = {
    "delta": "Every part of the model that the removed data had touched was moved, by direct calculation, to where the remaining data"
    " predicts it. Nothing was trained again.",
    "mmrecun": "The model was trained for a few more steps that push the removed interactions down while holding on to the remaining"
    " ones.",
    "surgery": "The removed data was cut out of the model's links, and what belonged to removed users and items was replaced by random"
    " starting values. Nothing was trained again.",
    "finetune": "The removed data was cut out of the model, which was then trained for a few more rounds on the remaining data.",
    "ascent": "Training was run backwards on the removed interactions, so that the model gets worse at them.",
    "rrl": "The model was trained to rank the removed interactions low, while what matters most for the remaining data was held in"
    " place.",
    "scif": "The influence of the removed interactions was estimated and taken back in one step, on the parts of the model that they"
    " touch.",
    "amnesiac": "The model keeps a record of its last training steps; those steps that involved removed data were taken back. What it"
    " had learnt before the record began was not.",
    "sisa": "The data had been split into parts with a model for each; the models whose part held removed data were trained again from"
    " scratch without it.",
    "receraser": "The data had been split into parts of similar users with a model for each; the models whose part held removed data"
    " were trained again from scratch without it. The split itself had been made with the removed data in view.",
    "ease": "The recommender is solved by a formula and not trained. Its solution was changed by exactly what the removed data had"
    " put into it, so that it is the solution for the remaining data.",
    "noisy": "Random noise was put over the model, so much that the removed data can hardly be told from it any more; it was then"
    " trained for some rounds on the remaining data.",
    "gold": "The model was trained again from scratch on the remaining data.",
    "coupled": "The model was trained again from scratch on the remaining data, repeating the original training step by step without"
    " the removed data.",
}
EXACT = {"sisa", "receraser", "ease", "gold", "coupled"}

Form = Literal["share", "index", "size", "steps", "correlation", "score"]
# The lowest and highest value that a figure of each form can have.
BOUNDS: dict[Form, tuple[float, float]] = {
    "share": (0, 1),
    "index": (0, 1),
    "size": (0, math.inf),
    "steps": (0, 300),
    "correlation": (-1, 1),
    "score": (-math.inf, math.inf),
}


class Words(NamedTuple):
    """A figure in plain words."""

    label: str
    form: Form


_FOUND = "found in a person's first 20 suggestions"
_TESTED = "test interactions found in the first 20 suggestions"
_APART = "distance from retrained models"

FIGURES = {
    **{
        f"forget recall@{k}": Words(f"removed interactions found in a person's first {k:,} suggestions", "share")
        for k in (20, 500, 1000, 1500)
    },
    "forget margin": Words("score of removed interactions above a person's average score", "score"),
    "membership AUC": Words("comparisons ranking a removed interaction above one never seen (chance: 50%)", "share"),
    "relearn steps": Words("training steps until known as well as before (few: they were only hidden)", "steps"),
    "modality overlap": Words("items alike in the removed content that are still close in the model", "share"),
    "neighbour dip AUC": Words("comparisons in which the surroundings of a removed interaction score lower", "share"),
    "similarity correlation": Words(
        "agreement with old links between items that only removed interactions made", "correlation"
    ),
    "sequence forget recall@20": Words(f"removed interactions {_FOUND}, after five parts", "share"),
    "sequence test recall@20": Words(f"{_TESTED}, after five parts", "share"),
    "sequence BPR divergence forget": Words(f"{_APART}, scores of removed interactions, after five parts", "size"),
    "test recall@20": Words(f"interactions kept back for testing, {_FOUND}", "share"),
    "test ndcg@20": Words(f"{_TESTED}, early places counting more", "index"),
    "valid recall@20": Words(f"interactions kept back for validation, {_FOUND}", "share"),
    "valid ndcg@20": Words(f"interactions kept back for validation, {_FOUND}, early places counting more", "index"),
    "near recall@20": Words(f"{_TESTED}, people close to removed data", "share"),
    "far recall@20": Words(f"{_TESTED}, people far from removed data", "share"),
    "active recall@20": Words(f"{_TESTED}, most active third", "share"),
    "inactive recall@20": Words(f"{_TESTED}, least active third", "share"),
    "head recall@20": Words(f"{_TESTED}, well-known items", "share"),
    "tail recall@20": Words(f"{_TESTED}, little-known items", "share"),
    "coverage": Words("items that are suggested to anyone", "share"),
    "evenness": Words("evenness with which items are suggested", "index"),
    "novelty": Words("how little known the suggested items are", "size"),
    "distance": Words("how much the items of one list differ", "size"),
    "overlap@20": Words("suggestions shared with retrained models", "share"),
    "BPR divergence forget": Words(f"{_APART}, scores of removed interactions", "size"),
    "BPR divergence retain": Words(f"{_APART}, scores of remaining interactions", "size"),
    "KL divergence forget": Words(f"{_APART}, rankings for people with removed interactions", "size"),
    "KL divergence retain": Words(f"{_APART}, rankings for remaining people", "size"),
}

Group = Literal["trace", "quality", "likeness", "further"]
GROUPS: dict[Group, str] = {
    "trace": "Is the removed data still in the model?",
    "quality": "Does the model still serve the remaining people?",
    "likeness": "Is the model like a retrained one?",
    "further": "Further checks",
}


class Question(NamedTuple):
    """A check in plain words."""

    group: Group
    title: str
    text: str
    answer: str  # if every figure is within range
    figures: tuple[str, ...]  # the one to draw first
    absent: str = "nothing to compare"  # why an audit may have none of them


# For the checks that an audit of a release can have: planting before training and shadow models belong to comparisons of methods.
QUESTIONS = {
    "forgetting": Question(
        "trace",
        "Removed interactions suggested",
        "Does the model still put removed interactions on people's lists?",
        "No more than retrained models do.",
        (*(f"forget recall@{k}" for k in (20, 500, 1000, 1500)), "forget margin"),
        "no interactions were removed",
    ),
    "membership": Question(
        "trace",
        "Guessing what was removed",
        "Can someone who sees the model's rankings tell removed interactions from ones it never saw?",
        "No better than with retrained models.",
        ("membership AUC",),
        "no comparable interactions were kept back",
    ),
    "relearn": Question(
        "trace",
        "Relearning",
        "Given the removed interactions back, does the model pick them up faster than one that never saw them?",
        "No faster than retrained models.",
        ("relearn steps",),
        "no interactions were removed, or several models answer together",
    ),
    "modality": Question(
        "trace",
        "Removed content",
        "Does the model still place items together because of the images, sound or text that were removed?",
        "No more than retrained models do.",
        ("modality overlap",),
        "no content was removed",
    ),
    "dip": Question(
        "trace",
        "Gaps that give away",
        "Do low scores around a removed interaction give away that something was removed there?",
        "No more than in retrained models.",
        ("neighbour dip AUC",),
        "no single interactions were removed from people and items that stay",
    ),
    "cooccurrence": Question(
        "trace",
        "Lost links",
        "Does the model still link items that only removed interactions had linked?",
        "No more than retrained models do.",
        ("similarity correlation",),
        "no links were lost",
    ),
    "sequence": Question(
        "trace",
        "Request in parts",
        "Is the outcome as good when the same request comes in five parts, one after the other?",
        "Yes, as with retrained models.",
        tuple(f"sequence {figure}" for figure in ("forget recall@20", "test recall@20", "BPR divergence forget")),
        "not run",
    ),
    "utility": Question(
        "quality",
        "Quality of suggestions",
        "Are the suggestions for the remaining people as good as after retraining?",
        "Yes, as with retrained models.",
        ("test recall@20", "test ndcg@20", "valid recall@20", "valid ndcg@20"),
        "nothing was kept back for testing",
    ),
    "groups": Question(
        "quality",
        "Fairness",
        "Did anyone pay for the removal: people close to removed data, the less active, little-known items?",
        "No more than in retraining.",
        tuple(f"{name} recall@20" for name in ("near", "far", "active", "inactive", "head", "tail")),
        "nothing was kept back for testing",
    ),
    "diversity": Question(
        "quality",
        "Variety",
        "Are the suggestions as varied as after retraining?",
        "Yes, as with retrained models.",
        ("coverage", "evenness", "novelty", "distance"),
    ),
    "overlap": Question(
        "likeness",
        "Same suggestions",
        "Does the model suggest what retrained models suggest?",
        "Yes, as much as they agree with each other.",
        ("overlap@20",),
    ),
    "divergence": Question(
        "likeness",
        "Same scores",
        "Does the model score people and items as retrained models do?",
        "Yes, as closely as they do each other.",
        tuple(f"{kind} divergence {side}" for kind in ("BPR", "KL") for side in ("forget", "retain")),
    ),
}

# What a model does, by the name of its miss.
DOES = {
    "under-forgotten": "still remembers removed data",
    "over-forgotten": "pushes removed data down further than never having seen it would, which can give it away as well",
    "utility lost": "recommends worse than retrained models",
    "variety lost": "gives less varied suggestions than retrained models",
    "unlike Gold": "differs from retrained models more than they differ from each other",
}

Status = Literal["outside", "borderline", "inside", "unjudged"]
STATUS_WORDS: dict[Status, str] = {  # the worst first
    "outside": "Out of range",
    "borderline": "Borderline",
    "inside": "Within range",
    "unjudged": "Not judged",
}

PROBES = {
    "similarities": "similarities among affected people and items",
    "affected scores": "scores of affected people and items",
    "other scores": "scores of all others",
    "retained pairs": "remaining interactions",
    "forgotten pairs": "removed interactions",
}

EVENTS = {"trained": "Trained", "grown": "Data added", "unlearned": "Data removed", "audited": "Audited"}
RETRAINED = "models trained from scratch without the data: what exact forgetting looks like"
