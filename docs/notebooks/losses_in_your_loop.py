# %% [markdown]
# # One loss in a loop of your own
#
# `recunlearn_jax.losses` imports nothing but jax. Each loss is a plain function of arrays, and `<name>_jit` is the same ready-jitted.
# Here `reverse_bpr`, which pushes forgotten pairs below others, is put into a loop in plain jax and into one with flax and optax.

# %%
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from recunlearn_jax import losses

users = jax.random.normal(jax.random.key(0), (64, 16))
items = jax.random.normal(jax.random.key(1), (64, 16))

# %% [markdown]
# ## Plain jax, in the manner of a PyTorch loop
#
# User n is to forget item n. The next item stands in as its negative.


# %%
def scores(users, items):
    return jnp.sum(users * items, axis=1)


def forgetting(users):
    return losses.reverse_bpr(scores(users, items), scores(users, jnp.roll(items, 1, axis=0)))


value_and_grad = jax.jit(jax.value_and_grad(forgetting))
moved = users
for step in range(31):
    loss, gradient = value_and_grad(moved)
    moved = moved - 2.0 * gradient
    if step % 10 == 0:
        above = jnp.mean(scores(moved, items) > scores(moved, jnp.roll(items, 1, axis=0)))
        print(f"step {step:2}  loss {loss:.3f}  forgotten pairs above their negative: {above:.0%}")

# %% [markdown]
# ## Flax and optax
#
# A matrix factorisation as a Linen module. Retained pairs are kept up by `bpr` while forgotten ones go down.


# %%
class Factorisation(nn.Module):
    """Scores of (user, item) pairs."""

    @nn.compact
    def __call__(self, user, item):
        of_users, of_items = nn.Embed(64, 16, name="users")(user), nn.Embed(64, 16, name="items")(item)
        return jnp.sum(of_users * of_items, axis=1)


model, everyone = Factorisation(), jnp.arange(64)
params = model.init(jax.random.key(2), everyone, everyone)
kept, forgotten, others = (jnp.roll(everyone, shift) for shift in (1, 0, 2))


def objective(params):
    kept_scores, forgotten_scores, other_scores = (model.apply(params, everyone, i) for i in (kept, forgotten, others))
    return losses.bpr(kept_scores, other_scores) + losses.reverse_bpr(forgotten_scores, other_scores)


optimizer = optax.adam(0.05)
state = optimizer.init(params)


@jax.jit
def step(params, state):
    loss, gradients = jax.value_and_grad(objective)(params)
    updates, state = optimizer.update(gradients, state)
    return optax.apply_updates(params, updates), state, loss


for _ in range(60):
    params, state, loss = step(params, state)
ranks = [model.apply(params, everyone, i).mean() for i in (kept, others, forgotten)]
print("mean score of kept, other and forgotten pairs:", [f"{float(x):.2f}" for x in ranks])
assert ranks[0] > ranks[1] > ranks[2]
