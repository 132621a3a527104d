# %% [markdown]
# # Bring your own data
#
# Interactions come from CSV, TSV, Parquet, RecBole or raw Amazon files, with ids of any type; features from .npy, .npz, .safetensors or a
# table. `prepare` makes a folder of them, and from then on requests and recommendations speak your ids.

# %%
import tempfile
from pathlib import Path

import numpy as np

import recunlearn_jax as ru
from recunlearn_jax.preparation import Options, prepare

place = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)
customers, articles = [f"customer-{n:03}" for n in range(300)], [f"SKU{n:04}" for n in range(120)]
lines = ["customer,article,stars,when"]
for n, customer in enumerate(customers):
    taste = np.arange(120) % 4 == n % 4
    bought = rng.choice(120, 8, replace=False, p=np.where(taste, 6, 1) / np.where(taste, 6, 1).sum())
    lines += [
        f"{customer},{articles[b]},{rng.integers(1, 6)},{1_700_000_000 + 1000 * n + k}" for k, b in enumerate(bought)
    ]
(place / "sales.csv").write_text("\n".join(lines) + "\n")
content = np.eye(4)[np.arange(120) % 4].repeat(4, axis=1) + 0.3 * rng.normal(size=(120, 16))
np.savez(place / "pictures.npz", ids=np.array(articles), features=content.astype(np.float32))
print("\n".join(lines[:3]))

# %%
options = Options(user_column="customer", item_column="article", time_column="when", split="leave_one_out")
report = prepare(place / "sales.csv", place / "shop", options, {"pictures": place / "pictures.npz"})
print(report.dataset.summary())
for note in report.notes:
    print("note:", note)

# %% [markdown]
# On the command line: `recunlearn data prepare sales.csv shop --user-column customer ... --features pictures=pictures.npz`. Train on the
# folder, recommend, and answer a removal request, all in your own ids.

# %%
shop = ru.read_dataset(place / "shop")
original = ru.fit(shop, ru.PRESETS["toy"])


def shown(model, customer):
    (row,) = model.recommend([model.dataset.number("user", customer)], k=5)
    return [model.dataset.word("item", article) for article in row]


print("customer-004:", shown(original, "customer-004"))

# %%
request = ru.Request(users=["customer-007", "customer-042"], items=["SKU0004"])
answered = ru.answer(original, request, "delta")
print(f"forgotten in {answered.seconds.total:.2f} s; customer-004 is shown", shown(answered, "customer-004"))
assert "SKU0004" not in shown(answered, "customer-004")
try:
    shown(answered, "customer-042")
except ru.InputError as error:
    print(error)

# %% [markdown]
# The names of what was removed are gone from the data, and `grow` would refuse them if they came back: a digest remembers them.

# %%
print("customer-042" in answered.dataset.user_ids, len(answered.dataset.user_ids))
