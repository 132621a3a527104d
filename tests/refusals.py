"""What calls and folders are refused with, and an item graph of a folder that is not."""

import numpy as np
import pytest
import scipy.sparse
from toys import NUM_ITEMS

from recunlearn_jax.data import read_dataset
from recunlearn_jax.errors import InputError


def item_graph(size=NUM_ITEMS):
    return scipy.sparse.csr_matrix(
        np.eye(size, dtype=np.float32) + np.float32(0.5) * np.eye(size, k=1, dtype=np.float32)
    )


def told(function, *arguments):
    """The message of the InputError that a call raises."""
    with pytest.raises(InputError) as caught:
        function(*arguments)
    return str(caught.value)


def refusal(folder):
    """The message with which a folder is refused."""
    return told(read_dataset, folder)


def assert_refused(folder, path, *parts):
    """The message begins with the file and names each of the parts: the row, the value, the rule."""
    message = refusal(folder)
    assert message.startswith(f"{path}: ")
    for part in parts:
        assert part in message
