# %% [markdown]
# # Run on several devices
#
# Tables, features and batches are laid over a mesh by jax's own means; the code is the same with and without one. On a TPU slice or a
# machine with several GPUs, leave the first lines out: they make four devices of one CPU, so that this page runs anywhere.

# %%
import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

# %%
import jax
import numpy as np

import recunlearn_jax as ru
from recunlearn_jax.mesh import device_mesh

print(jax.devices())
shop = ru.toy(200, 120)
config = ru.Config("lightgcn", train=ru.TrainConfig(batch_size=1024, learning_rate=5e-3, max_epochs=2))

# %% [markdown]
# `jax.set_mesh` is all there is to it. Rows of every table and every batch are spread over the devices where their number divides.

# %%
with jax.set_mesh(device_mesh()):
    spread = ru.fit(shop, config)
    answered = ru.answer(spread, ["users:5%"], "delta")
    print(spread.params["user_embedding"].sharding)
    rows = np.asarray(answered.rows)

# %% [markdown]
# One device gives the same model but for rounding: sums run in another order.

# %%
alone = ru.fit(shop, config)
difference = np.abs(np.asarray(alone.rows) - np.asarray(spread.rows)).max() / np.abs(np.asarray(alone.rows)).max()
print(f"largest difference of a row: {difference:.1e} of the largest number")
assert np.isfinite(rows).all()
assert difference < 1e-2

# %% [markdown]
# `recunlearn train --devices 4` and `compare --devices 4` do the same on the command line. `experiments/tpu` has the scripts for a TPU
# machine.
