"""What eight devices say to each other in a training step: counted in the compiled program, and projected.

    python benchmarks/communication.py OUT.json [--users 3200 12800]

The step is compiled for a mesh of eight fake devices of one CPU, as `recunlearn_jax.mesh` lays tables, edges and batches over one, and is
not run. Each collective of the program is counted with the bytes that a device sends in it, by a ring of p: of what it is given it sends
(p - 1) / p in an all-gather or an all-to-all, twice that in an all-reduce, and all in a permutation. A straight line through the sizes
tells what follows the batch from what follows the nodes, and gives the step on 10^6 users and 10^5 items. Seconds are those bytes over
the rate of a device's links (of one direction, by their makers), nothing hidden behind computing. The program is a CPU's: off the CPU
InfoNCE takes another branch, which changes what follows the batch.
"""

import argparse
import functools
import math
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

DEVICES = 8
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from recunlearn_jax.config import PRESETS  # noqa: E402
from recunlearn_jax.environment import environment  # noqa: E402
from recunlearn_jax.files import write_json  # noqa: E402
from recunlearn_jax.mesh import device_mesh, place  # noqa: E402
from recunlearn_jax.recommender import init_params, set_up  # noqa: E402
from recunlearn_jax.synthetic import toy  # noqa: E402
from recunlearn_jax.train import epoch_plan, init_state, train_step  # noqa: E402

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
# Of the bytes that a collective gives a device, those that each device sends, by a ring of p.
SENT = {
    "all-gather": lambda p: (p - 1) / p,
    "all-reduce": lambda p: 2 * (p - 1) / p,
    "reduce-scatter": lambda p: p - 1,
    "all-to-all": lambda p: (p - 1) / p,
    "collective-permute": lambda p: 1,
}
# Bytes a second that a device sends to its neighbours, of one direction.
LINKS = {"NVLink 4 (H100, 8 in one node)": 450e9, "ICI of TPU v5e": 200e9, "PCIe 5, 16 lanes": 64e9}
LARGE = 1_100_000  # nodes
USERS_OF_AN_ITEM = 10


def collectives(program: str, devices: int) -> dict[str, dict[str, float]]:
    """Kind -> how many run in a compiled program, and the bytes that a device sends in them; of a choice, its dearest branch.

    Args:
        program: HLO after partitioning, as text.
        devices: p.

    Raises:
        ValueError: a collective stands in a loop of which the text does not say how often it runs.
    """
    # Each computation begins at the left margin with its name and ends with a brace there.
    found = re.findall(r"^(ENTRY )?%([\w.-]+) [^\n]*\{\n(.*?)^\}", program, re.MULTILINE | re.DOTALL)
    parts = {name: text for _, name, text in found}

    def within(name: str) -> dict[str, dict[str, float]]:
        text = parts.get(name, "")
        turns = []
        for body, times in re.findall(r"body=%([\w.-]+)(?:[^\n]*known_trip_count\D*(\d+))?", text):
            if within(body) and not times:
                raise ValueError(f"a collective stands in the loop {body}, which does not say how often it runs")
            turns += int(times or 0) * [within(body)]
        inside = [
            max((within(branch) for branch in re.findall(r"%([\w.-]+)", branches)), key=_bytes)
            for branches in re.findall(r"branch_computations=\{([^}]*)\}", text)
        ]
        return _sum(
            [_own(text, devices), *inside, *turns, *map(within, re.findall(r"(?:calls|to_apply)=%([\w.-]+)", text))]
        )

    return within(next(name for entry, name, _ in found if entry))


def _own(text: str, devices: int) -> dict[str, dict[str, float]]:
    """Collectives of one computation itself."""
    counts, sent = Counter(), Counter()
    for made, kind in re.findall(rf"= (\(?.*?) ({'|'.join(SENT)})(?:-start)?\(", text):
        size = sum(
            BYTES[dtype] * math.prod(map(int, filter(None, shape.split(","))))
            for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", made)
        )
        counts[kind] += 1
        sent[kind] += size * SENT[kind](devices)
    return {kind: {"count": counts[kind], "bytes": sent[kind]} for kind in counts}


def _bytes(found: dict[str, dict[str, float]]) -> float:
    return sum(row["bytes"] for row in found.values())


def _sum(parts: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    kinds = [kind for kind in SENT if any(kind in part for part in parts)]
    return {
        kind: {key: sum(part[kind][key] for part in parts if kind in part) for key in ("count", "bytes")}
        for kind in kinds
    }


def compiled_step(users: int) -> str:
    """The program of a training step on generated data, ten pairs a user and two modalities of 32 columns, for the mesh that is set."""
    config = PRESETS["faithful"]
    setup = set_up(toy(users, users // USERS_OF_AN_ITEM, pairs_per_user=10, feature_size=32), config)
    state = init_state(place(init_params(jax.random.key(0), setup.data, backbone=setup.backbone)))
    plan = epoch_plan(state.epoch, setup.data, jax.random.key(0), config.train)
    step = jax.jit(functools.partial(train_step, backbone=setup.backbone, config=config.train))
    return step.lower(state.params, state.opt_state, jnp.int32(0), plan, setup.data).compile().as_text() or ""


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--users", type=int, nargs="+", default=[3200, 12800])
    given = parser.parse_args(words)
    sizes: list[dict[str, Any]] = []
    with jax.set_mesh(device_mesh(DEVICES)):
        for users in given.users:
            found = collectives(compiled_step(users), DEVICES)
            nodes = users + users // USERS_OF_AN_ITEM
            sizes.append({"nodes": nodes, "bytes": _bytes(found), "collectives": found})
            print(sizes[-1], flush=True)
    of_a_node, of_the_batch = np.polyfit([s["nodes"] for s in sizes], [s["bytes"] for s in sizes], 1)
    large = of_the_batch + of_a_node * LARGE
    result = {
        "devices": DEVICES,
        "sizes": sizes,
        "bytes_of_a_node": float(of_a_node),
        "bytes_of_the_batch": float(of_the_batch),
        "projected": {
            "nodes": LARGE,
            "bytes": float(large),
            "milliseconds": {link: 1e3 * float(large) / rate for link, rate in LINKS.items()},
        },
        "environment": environment(),
    }
    write_json(given.out, result)


if __name__ == "__main__":
    main(sys.argv[1:])
