# %% [markdown]
# # Train, forget, and see that it worked
#
# A recommender is trained on a generated shop, 5 % of its users leave, and three answers are put side by side: taking their data out of
# the graph alone (`surgery`), the default method (`delta`), and a model retrained without them (Gold).

# %%
import matplotlib.pyplot as plt
import numpy as np

import recunlearn_jax as ru
from recunlearn_jax.audit.canary import canary_ranks, plant

shop, canaries = plant(ru.toy(600, 300), 10)
print(shop.summary())

# %% [markdown]
# Ten **canaries** are planted: pairs of items that have nothing to do with each other, each bought together by eight users who are among
# those who leave. In a model that never saw them, the second item of a pair stands anywhere in the list of items most like the first.

# %%
original = ru.fit(shop, ru.PRESETS["toy"])
words = ["users:5%"]
leaving = np.union1d(ru.resolve(ru.parse(words), shop).users.nonzero()[0], canaries.users)
request = ru.Request(users=leaving.tolist())
models = {"original": original}
for method in ("surgery", "delta", "gold"):
    models[method] = ru.answer(original, request, method, seed=1)

# %% [markdown]
# By test Recall@20 the three answers are alike. The canaries tell them apart.

# %%
ranks = {name: canary_ranks(model.rows, canaries, shop.num_users) for name, model in models.items()}
print("          test Recall@20  median canary rank  seconds")
for name, model in models.items():
    task = ru.held_out_task(model.dataset, "test")
    recall = ru.ranking_metrics(model.rows, task, (20,))["recall@20"]
    rank, seconds = np.median(ranks[name]), model.seconds.running
    print(f"{name:10}{recall:14.3f}{rank:13.0f} of {shop.num_items}{seconds:9.2f}")

# %%
figure, axis = plt.subplots(figsize=(6, 3))
axis.boxplot(list(ranks.values()), tick_labels=list(ranks))
axis.set(ylabel="rank of the second item", yscale="log")
plt.show()

# %% [markdown]
# Rows of those who left are those of a model that has never seen them, and they cannot be served any more.

# %%
answered = models["delta"]
try:
    answered.recommend([int(leaving[0])])
except ru.InputError as error:
    print(error)
print(answered.recommend([0, 1], k=5))
