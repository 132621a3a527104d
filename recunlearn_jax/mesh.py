"""Several devices: tables and batches laid over a mesh by rows. Distribution is jax's own; the same code runs with and without a mesh.

    with jax.set_mesh(device_mesh()):
        trained = fit(dataset, config)

Tables, features and edges are spread by rows if their number is divisible by that of the devices, and are copied to every device
otherwise; each step's batch is spread by rows. The compiler adds the communication.
"""

from typing import TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

AXIS = "rows"
Tree = TypeVar("Tree")


def device_mesh(count: int | None = None) -> Mesh:
    """A mesh of one axis over the first `count` devices, all of them if None."""
    devices = jax.devices()[:count]
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def devices_in_use() -> int:
    """Number of devices of the mesh that is set, 1 if none is."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size


def place(tree: Tree) -> Tree:
    """Lay arrays over the mesh that is set; unchanged if none is."""
    if devices_in_use() == 1:
        return tree
    return jax.tree.map(lambda x: jax.device_put(x, row_sharding(x.shape)), tree)


def row_sharding(shape: tuple[int, ...]) -> Sharding:
    """Where an array of this shape lies: over the mesh that is set, or on the first device if none is."""
    if devices_in_use() == 1:
        return SingleDeviceSharding(jax.devices()[0])
    return NamedSharding(jax.sharding.get_mesh(), _by_rows(shape))


def spread(tree: Tree) -> Tree:
    """Ask the compiler to spread a batch over the mesh that is set, rows first; for traced code."""
    if devices_in_use() == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, _by_rows(x.shape)), tree)


def _by_rows(shape: tuple[int, ...]) -> PartitionSpec:
    divides = len(shape) > 0 and shape[0] > 0 and shape[0] % devices_in_use() == 0
    return PartitionSpec(AXIS) if divides else PartitionSpec()
