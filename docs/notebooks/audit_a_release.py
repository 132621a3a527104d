# %% [markdown]
# # Audit a release
#
# An answer to a request is worth what can be shown of it. Here a model that has forgotten is judged by retrained ones: each figure of
# the audit says where a further retrained model would fall, and whether the answer lies there, too.

# %%
import recunlearn_jax as ru
from recunlearn_jax.audit import CHECKS, Subject, examine, make_case
from recunlearn_jax.audit.base import Attempt

config = ru.PRESETS["toy"]
case = make_case(ru.toy(400, 240), ru.parse(["users:5%"]), config, {"canary": 8})
original = ru.fit(case.dataset, config)
golds = {f"gold-{i}": ru.fit(case.retain, config, seed=i, sizes=original.sizes) for i in (1, 2, 3)}
case = case._replace(original=original, golds=golds)

# %% [markdown]
# Two answers: `surgery` takes the data out of the graph and draws the rows of those who left anew, `delta` moves the rows they had an
# influence on as well.

# %%
subjects = [Subject("original", original)]
for method in ("surgery", "delta"):
    answered = ru.answer(original, case.forget_set, method, seed=1)
    subjects.append(Subject(method, answered, Attempt(method, ru.METHODS[method].Settings(), 1)))
checks = ["utility", "forgetting", "overlap", "canary"]
found = examine(case, subjects, checks)

# %%
names = [subject.name for subject in subjects]
print(f"{'figure':28}", *(f"{name:>12}" for name in names), "   Golds")
for figure in found["judged"]:
    name = figure["name"]
    if name not in found["bands"]:
        continue
    values = [found["figures"][model].get(name) for model in (*names, *golds)]
    if None not in values:
        own, of_golds = values[: len(names)], sorted(values[len(names) :])
        print(f"{name:28}", *(f"{x:12.3f}" for x in own), f"   {of_golds[0]:.3f} to {of_golds[-1]:.3f}")

# %% [markdown]
# The verdicts, of what lies outside the band:

# %%
for model, verdicts in found["verdicts"].items():
    outside = [name for name, said in verdicts.items() if said["verdict"] != "inside"]
    print(f"{model}: {', '.join(outside) or 'nothing outside'}")

# %% [markdown]
# On the command line the same is `recunlearn audit RELEASE --original ... --gold ...`, with all checks; `recunlearn report RELEASE` then
# writes a page for a data protection officer. A check of your own is one file: see *Write your own check*.

# %%
print(len(CHECKS), "checks:", ", ".join(CHECKS))
