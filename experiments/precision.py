"""What does a lower precision cost in quality? The cases of experiments/quality.py for devices that are not at hand, emulated on any.

    python experiments/precision.py DATA_FOLDERS_PARENT [CASE ...]

Training runs the program of float32, except that the two factors of every matrix product are rounded as a device with bfloat16 or
tensorfloat32 units would: to 8 bits of exponent and 7 or 10 of mantissa. Sums stay float32. How fast it is says nothing.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import quality
from jax.extend.core import Literal

from recunlearn_jax import train

MANTISSA_BITS = {"bfloat16": 7, "tensorfloat32": 10}
CASES = ("tiktok_tensorfloat32", "tiktok_bfloat16")


def rounded_products(function: Callable, bits: int) -> Callable:
    """The same function with the factors of all its matrix products rounded to so many bits of mantissa.

    Derivatives that the function itself takes are rounded too; of the result none may be taken, for rounding has none.
    """

    def run(*arguments):
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        results = _evaluate(closed, bits)(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return run


def _evaluate(closed, bits: int) -> Callable:
    """A closed jaxpr as a function of flat arguments, its matrix products rounded."""

    def round_(x):
        return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits)

    def run(*arguments):
        jaxpr, values = closed.jaxpr, {}
        values.update(zip(jaxpr.constvars, closed.consts, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))

        def read(variables):
            return [v.val if isinstance(v, Literal) else values[v] for v in variables]

        for equation in jaxpr.eqns:
            results = _apply(equation, read(equation.invars), round_, functools.partial(_evaluate, bits=bits))
            values.update(zip(equation.outvars, results, strict=True))
        return read(jaxpr.outvars)

    return run


def _apply(equation, inputs: list, round_: Callable, inner: Callable) -> list:
    """Results of one equation; what it holds is evaluated by `inner`."""
    name, settings = equation.primitive.name, equation.params
    if name == "dot_general":
        return [equation.primitive.bind(*map(round_, inputs), **settings)]
    if name in {"jit", "custom_jvp_call", "custom_vjp_call"}:
        return inner(settings["jaxpr" if name == "jit" else "call_jaxpr"])(*inputs)
    if name == "cond":
        return jax.lax.switch(inputs[0], [inner(branch) for branch in settings["branches"]], *inputs[1:])
    if name == "scan":
        constants, carried = _scan_sizes(settings)
        body = inner(settings["jaxpr"])

        def turn(carry, x):
            results = body(*inputs[:constants], *carry, *x)
            return results[:carried], results[carried:]

        start, rows = inputs[constants : constants + carried], inputs[constants + carried :]
        carry, stacked = jax.lax.scan(turn, start, rows, length=settings["length"], reverse=settings["reverse"])
        return [*carry, *stacked]
    if name == "while":
        tested, looped = settings["cond_nconsts"], settings["body_nconsts"]
        test, body = inner(settings["cond_jaxpr"]), inner(settings["body_jaxpr"])
        for_test, for_body, carry = inputs[:tested], inputs[tested : tested + looped], inputs[tested + looped :]

        def turn_while(carry):
            going, moved = test(*for_test, *carry)[0], body(*for_body, *carry)
            if not going.ndim:
                return moved
            # Under vmap each goes on for as long as it would alone.
            masks = [going.reshape(going.shape + (1,) * (new.ndim - going.ndim)) for new in moved]
            return [jnp.where(mask, new, old) for mask, new, old in zip(masks, moved, carry, strict=True)]

        return jax.lax.while_loop(lambda c: jnp.any(test(*for_test, *c)[0]), turn_while, carry)
    if any(" dot_general[" in str(part) for part in settings.values()):
        raise ValueError(f"{name!r} holds matrix products, which would stay unrounded")
    results = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(settings))
    return results if equation.primitive.multiple_results else [results]


def _scan_sizes(settings) -> tuple[int, int]:
    """Numbers of constants and of carried values among the inputs of a scan."""
    if "num_consts" in settings:
        return settings["num_consts"], settings["num_carry"]
    constants, carried, _ = settings["ft_in"].unpack()  # jax 0.12 says it so
    return len(list(constants)), len(list(carried))


def main(parent: Path, cases: list[str]) -> None:
    epoch = train.train_epoch
    for case in cases:
        bits = MANTISSA_BITS[quality.CASES[case][1].train.precision]

        @functools.partial(jax.jit, static_argnames=("backbone", "config"), donate_argnums=0)
        def rounded(state, data, key, *, backbone, config, bits=bits):
            config = replace(config, precision="float32")
            return rounded_products(functools.partial(epoch, backbone=backbone, config=config), bits)(state, data, key)

        with mock.patch.object(train, "train_epoch", rounded), mock.patch.object(train, "check_precision"):
            quality.main(parent, [case])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(CASES))
