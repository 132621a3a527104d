"""What happens in a stream and in which order; drawn before it begins, so that an interrupted stream resumes with the same events."""

from typing import NamedTuple

import numpy as np

from recunlearn_jax.audit.canary import Canaries
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.requests import Request
from recunlearn_jax.stream.clock import Clock

QUARTERS = 4
LARGE, MIDDLE = 0.01, 0.001  # shares of the users in a large request, and in a medium one
# Shares of the requests that are neither canaries nor large: one user, some pairs of a user, an item, a share of the users.
KINDS = {"one user": 0.7, "pairs of a user": 0.15, "one item": 0.1, "0.1 % of the users": 0.05}
PAIRS = 3  # in a request for pairs of a user


class Learn(NamedTuple):
    """Some arrivals, `Plan.arrivals[start:stop]`, are taken up."""

    start: int
    stop: int


class Remove(NamedTuple):
    """A removal request."""

    number: int  # from 1
    kind: str
    request: Request


class Quarter(NamedTuple):
    """The model is compared with exact retraining."""

    number: int  # 1 to 4


Event = Learn | Remove | Quarter


class Plan(NamedTuple):
    """A stream."""

    begin: int  # number of arrivals that the first model is trained on
    arrivals: np.ndarray  # int32 [n, 2], train pairs in the order in which they come
    events: tuple[Event, ...]


def make_plan(
    dataset: Dataset,
    clock: Clock,
    *,
    requests: int,
    updates: int,
    begin: float = 0.7,
    canaries: Canaries | None = None,
    seed: int = 0,
) -> Plan:
    """Draw a stream.

    Arrivals are cut into `updates` parts, each taken up at its end; requests come at random in between. Each of the first requests is for
    the users of one canary, whose pairs were there from the beginning; two are for 1 % of the users, the others for what `KINDS` says.
    A request names only what the model knows by then and no earlier request has removed.

    Args:
        dataset: everything that ever comes, planted users last.
        clock: of the data set without planted users.
        requests: number of removal requests, at least four.
        updates: how often the model takes up what came.
        begin: share of the arrivals before the stream, above 0 and below 1.
        canaries: planted in the data set.
        seed: of all draws.

    Raises:
        InputError: a number is out of range, there are too few requests for the quarters and the canaries, or so many that nothing is left.
    """
    planted = 0 if canaries is None else len(canaries.pairs)
    if requests < QUARTERS or requests < planted + 2:
        raise InputError(
            f"requests is {requests}; at least {max(QUARTERS, planted + 2)} are needed for the quarters and the canaries"
        )
    if not 0 < begin < 1:
        raise InputError(f"begin is {begin}; a share above 0 and below 1 is allowed")
    times = np.full(len(dataset.train), -np.inf)
    times[: len(clock.times)] = clock.times  # planted users are the last rows of a data set
    arrivals = dataset.train[np.argsort(times, kind="stable")]
    start = round(len(arrivals) * begin)
    least = max(1, len(dataset.train) - len(clock.times))
    if start < least:
        raise InputError(
            f"begin is {begin}: {start} of {len(arrivals)} pairs come before the stream; at least {least} are needed, canaries included"
        )
    if not 1 <= updates <= len(arrivals) - start:
        raise InputError(f"updates is {updates}; 1 to {len(arrivals) - start}, the arrivals in the stream, are allowed")
    cuts = np.linspace(start, len(arrivals), updates + 1).astype(int)
    rng = np.random.default_rng([seed, 22])
    places = np.sort(rng.integers(0, updates, requests))  # the part of the arrivals in which each request comes
    first, second = (round((requests - planted) * at) for at in (1 / 3, 2 / 3))
    large = {planted + first, planted + max(first + 1, second)}
    draw = _Draws(dataset, arrivals, rng, canaries)
    events: list[Event] = []
    learned = 0
    for number in range(1, requests + 1):
        while learned < places[number - 1]:
            events.append(Learn(int(cuts[learned]), int(cuts[learned + 1])))
            learned += 1
        kind, request = draw.next(number, int(cuts[learned]), number in large)
        events.append(Remove(number, kind, request))
        if number * QUARTERS // requests > (number - 1) * QUARTERS // requests:
            events.append(Quarter(number * QUARTERS // requests))
    # What comes after the last request is taken up before the last comparison.
    rest = [Learn(int(a), int(b)) for a, b in zip(cuts[learned:-1], cuts[learned + 1 :], strict=True)]
    return Plan(start, arrivals, (*events[:-1], *rest, events[-1]))


class _Draws:
    """Draws requests, and remembers what they have removed."""

    def __init__(self, dataset: Dataset, arrivals: np.ndarray, rng: np.random.Generator, canaries: Canaries | None):
        self.dataset, self.arrivals, self.rng = dataset, arrivals, rng
        self.here = np.ones(len(arrivals), bool)
        self.canaries = [] if canaries is None else np.split(canaries.users, len(canaries.pairs))
        self.spared = np.zeros(dataset.num_users, bool)
        self.spared[[] if canaries is None else canaries.users] = True
        # The items of a canary stay: its trace is read in their rows.
        self.kept = np.zeros(dataset.num_items, bool)
        self.kept[[] if canaries is None else canaries.pairs.ravel()] = True

    def next(self, number: int, known: int, large: bool) -> tuple[str, Request]:
        """Kind and request of a number, drawn among the `known` first arrivals."""
        if number <= len(self.canaries):
            return "canary", self._users(self.canaries[number - 1])
        there = self.arrivals[:known][self.here[:known]]
        users = np.unique(there[:, 0])
        users, items = users[~self.spared[users]], np.unique(there[:, 1])
        items = items[~self.kept[items]]
        if not len(users) or not len(items):
            raise InputError(
                f"requests: after {number - 1} of them nothing is left that one could be for; ask for fewer"
            )
        if large:
            return "1 % of the users", self._users(self._some(users, LARGE))
        kind = self.rng.choice(list(KINDS), p=list(KINDS.values()))
        if kind == "0.1 % of the users":
            return kind, self._users(self._some(users, MIDDLE))
        if kind == "one item":
            item = self.rng.choice(items)
            self.here &= self.arrivals[:, 1] != item
            return kind, Request(items=self.dataset.named("item", np.array([item])))
        user = self.rng.choice(users)
        if kind == "one user":
            return kind, self._users(np.array([user]))
        own = np.flatnonzero(self.here[:known] & (self.arrivals[:known, 0] == user))
        chosen = np.sort(self.rng.permutation(own)[:PAIRS])
        self.here[chosen] = False
        ends = self.arrivals[chosen]
        names = zip(self.dataset.named("user", ends[:, 0]), self.dataset.named("item", ends[:, 1]), strict=True)
        return str(kind), Request(pairs=list(names))

    def _some(self, users: np.ndarray, share: float) -> np.ndarray:
        return np.sort(self.rng.choice(users, max(1, round(len(users) * share)), replace=False))

    def _users(self, users: np.ndarray) -> Request:
        self.here &= ~np.isin(self.arrivals[:, 0], users)
        return Request(users=self.dataset.named("user", np.asarray(users)))
