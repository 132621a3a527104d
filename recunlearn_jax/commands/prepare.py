"""`recunlearn data prepare`: an operator's own files become a data folder."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from recunlearn_jax.errors import InputError
from recunlearn_jax.preparation import Options, prepare


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Make a data folder from an interaction file and feature files; all later commands use the ids of these files."""

    interactions: tyro.conf.Positional[Path]
    """CSV, TSV, Parquet, RecBole .inter, or raw Amazon reviews (2014 and 2023, .gz as they come)."""
    folder: tyro.conf.Positional[Path]
    """New folder; its name is that of the data set."""
    features: tuple[str, ...] = ()
    """modality=FILE, such as image=image.npz: .npy, .npz, .safetensors or a table by item id."""
    options: Annotated[Options, tyro.conf.OmitArgPrefixes] = dataclasses.field(default_factory=Options)

    def run(self) -> None:
        files = {}
        for word in self.features:
            modality, equals, path = word.partition("=")
            if not equals or not modality or not path or modality in files:
                raise InputError(f"--features {word}: expected modality=FILE, each modality once")
            files[modality] = Path(path)
        made = prepare(self.interactions, self.folder, self.options, files)
        print(made.dataset.summary())
        for note in made.notes:
            print(f"note: {note}")
