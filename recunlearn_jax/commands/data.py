"""`recunlearn data`: check a data folder, or make one."""

import dataclasses
from pathlib import Path

import tyro


@dataclasses.dataclass(frozen=True)
class Data:
    """Check a data folder, or write the toy data set into a new one; for your own files see `recunlearn data prepare --help`."""

    folder: tyro.conf.Positional[Path]
    """An MMRec folder to check; with --toy, a new folder to write."""
    toy: bool = False
    """Write the synthetic data set: clusters of users and items with matching features."""
    users: int = 1500
    items: int = 800
    pairs_per_user: int = 14
    clusters: int | None = None
    """8 by default, fewer if there are not enough items."""
    modalities: tuple[str, ...] = ("image", "text")
    feature_size: int = 32
    seed: int = 0

    def run(self) -> None:
        from recunlearn_jax.data import read_dataset, write_dataset
        from recunlearn_jax.synthetic import toy

        if self.toy:
            dataset = toy(
                self.users,
                self.items,
                pairs_per_user=self.pairs_per_user,
                clusters=self.clusters,
                modalities=self.modalities,
                feature_size=self.feature_size,
                seed=self.seed,
            )
            write_dataset(dataset, self.folder)
        dataset = read_dataset(self.folder)
        print(dataset.summary())
        for modality in dataset.modalities:
            empty = int((~dataset.features[modality].any(axis=1)).sum())
            source = (
                "item graph from a file"
                if modality in dataset.similarities
                else "item graph will be built from the features"
            )
            print(f"  {modality}: {source}; {empty} items without the feature")
        print(f"  checksum {dataset.checksum}")
