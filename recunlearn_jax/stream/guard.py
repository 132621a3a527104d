"""The guard: when approximate answers and updates have gone on for long enough, and exact retraining is due."""

from dataclasses import dataclass
from typing import NamedTuple

from recunlearn_jax.settings import Checked, NotNegative, Share


@dataclass(frozen=True)
class Guard(Checked):
    """How much approximation may cost before exact retraining is due.

    Answers have been judged against retraining for requests that forget 5 to 13 % of the pairs at once, and for 5 % of the users in twenty
    parts (docs/forgetting.md). The default is the lower end.
    """

    forgotten: Share = 0.05
    """Share of the train pairs forgotten in all answers since the last exact training."""
    learned: NotNegative = 0.1
    """Interactions taken up in updates since then, as a share of those that were there. A model that goes on learning may fall behind a
    retrained one without its own valid Recall@20 showing it; a tenth is a choice, and docs/streams.md has a stream with it."""
    lost: Share = 0.05
    """Loss of valid Recall@20, as a share of the best since then."""


class Spent(NamedTuple):
    """What has been used since the last exact training."""

    forgotten: float = 0.0  # sum over answers of the share of the train pairs that each forgot
    learned: float = 0.0  # sum over updates of what came, in shares of what was there
    best: float = 0.0  # valid Recall@20
    now: float = 0.0  # the same, when it was last measured

    def answered(self, share: float) -> "Spent":
        """After a request for a share of the train pairs."""
        return self._replace(forgotten=self.forgotten + share)

    def grown(self, share: float) -> "Spent":
        """After an update by a share of the train pairs."""
        return self._replace(learned=self.learned + share)

    def measured(self, recall: float) -> "Spent":
        """After valid Recall@20 was measured."""
        return self._replace(best=max(self.best, recall), now=recall)


def objection(guard: Guard, spent: Spent) -> str | None:
    """Why exact retraining is due, None where it is not.

    Examples:
        >>> objection(Guard(), Spent(forgotten=0.06, best=0.1, now=0.1))
        '6.0% of the pairs forgotten by approximation, 5.0% are allowed'
        >>> objection(Guard(), Spent(forgotten=0.01, best=0.1, now=0.09))
        'valid Recall@20 fell by 10.0%, 5.0% are allowed'
    """
    if spent.forgotten > guard.forgotten:
        return f"{spent.forgotten:.1%} of the pairs forgotten by approximation, {guard.forgotten:.1%} are allowed"
    if spent.learned > guard.learned:
        return f"{spent.learned:.1%} of the pairs taken up in updates, {guard.learned:.1%} are allowed"
    lost = 1 - spent.now / spent.best if spent.best > 0 else 0.0
    if lost > guard.lost:
        return f"valid Recall@20 fell by {lost:.1%}, {guard.lost:.1%} are allowed"
    return None
