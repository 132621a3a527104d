"""The command that replays a stream: `stream`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from recunlearn_jax import settings
from recunlearn_jax.commands.options import Settings


@dataclasses.dataclass(frozen=True)
class Stream:
    """Replay a data set as a stream of interactions, new users, new items and removal requests, with Golds at each quarter of the requests.
    The same command resumes a stream interrupted at any time. `--set learn.epochs=2 learn.rehearsal=1` says how new interactions are
    learned, and `guard.forgotten=0.05 guard.learned=0.1 guard.lost=0.05` when exact retraining is due."""

    data: Path
    """MMRec folder; a column timestamp or order of its .inter file is the clock."""
    out: Path
    """Folder for stream.json, stream.md and stream.png."""
    requests: int = 200
    """Removal requests, one at a time."""
    updates: int = 20
    """How often the model takes up what came."""
    begin: float = 0.7
    """Share of the interactions that the first model is trained on."""
    canaries: int = 10
    """Plant this many item pairs, each known to eight users; the first requests remove them."""
    golds: int = 2
    """Models retrained at each quarter of the requests; with 0 the model in service is measured alone."""
    method: str = "delta"
    """Method that answers the requests, as for unlearn."""
    seed: int = 0
    """Seed of the clock where the data has none, of the requests and of the model."""
    options: Annotated[Settings, tyro.conf.OmitArgPrefixes] = dataclasses.field(default_factory=Settings)

    def run(self) -> None:
        ours = [word for word in self.options.set if word.startswith(("learn.", "guard."))]
        others = tuple(word for word in self.options.set if word not in ours)
        config, _ = dataclasses.replace(self.options, set=others).resolve()
        from recunlearn_jax.files import write_text
        from recunlearn_jax.report import stream_markdown, stream_plot
        from recunlearn_jax.stream import Guard, Learning, read_clock, replay
        from recunlearn_jax.unlearn.driver import find

        find(self.method, None)
        defaults = {"learn": settings.to_dict(Learning()), "guard": settings.to_dict(Guard())}
        chosen = settings.override(defaults, ours)
        learning = settings.from_dict(chosen["learn"], Learning, "learn")
        guard = settings.from_dict(chosen["guard"], Guard, "guard")
        dataset, clock = read_clock(self.data, self.seed)
        result = replay(
            dataset,
            clock,
            config,
            requests=self.requests,
            updates=self.updates,
            begin=self.begin,
            canaries=self.canaries,
            golds=self.golds,
            method=self.method,
            learning=learning,
            guard=guard,
            seed=self.seed,
            out=self.out,
            tell=lambda line: print(line, flush=True),
        )
        text = stream_markdown(result)
        write_text(self.out / "stream.md", text)
        stream_plot(result, self.out / "stream.png")
        print(text)
        print(f"results in {self.out / 'stream.json'}, stream.md, stream.png")
