#!/bin/bash
# The whole column of an accelerator in one call, eleven minutes at most: step, floors, evaluation, Gold and unlearning at the size of
# Amazon-Baby with 4,480 feature columns; layouts and stacked trainings; MMRec's MGCN beside it where MMREC and TORCH_PYTHON say where they are.
#
#     benchmarks/accelerator.sh [OUT]      JSON in OUT, runs/accelerator where it is not given
#
# USERS, ITEMS, WIDTH, MODALITIES, CANARIES, PROCESSES, MODELS, PRESET, SET (single settings) and STACKED (words of its own) make it smaller. A part that is
# cut off is said so and the next one begins; what one part compiles serves the next.
set -u
cd "$(dirname "$0")/.."
OUT=${1:-runs/accelerator}
PYTHON=${PYTHON:-python}
export JAX_DEFAULT_MATMUL_PRECISION=highest  # float32 is float32 on a GPU too
export XLA_PYTHON_CLIENT_PREALLOCATE=false     # the reference needs some of it
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$OUT/programs} JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
export PYTHONPATH=${PYTHONPATH:-}:$PWD
part() {
  echo "== $*"
  timeout "$LIMIT" "$PYTHON" "$@" || echo "accelerator.sh: cut off or failed (exit code $?): $*"
}
read -ra SET <<<"${SET:-}"
CHOSEN=(--preset "${PRESET:-faithful}" --set "${SET[@]}")
mkdir -p "$OUT"
"$PYTHON" -c 'import jax; print(jax.devices())'
DATA=$OUT/data
[ -d "$DATA" ] || "$PYTHON" -m recunlearn_jax.cli data "$DATA" --toy --users "${USERS:-19445}" --items "${ITEMS:-7050}" \
  --pairs-per-user 8 --clusters 16 --feature-size "${WIDTH:-2240}" --modalities ${MODALITIES:-image text}
LIMIT=90 part benchmarks/step.py "$OUT/step.json" --data "$DATA" "${CHOSEN[@]}"
LIMIT=200 part benchmarks/unlearning.py "$OUT/unlearning.json" --data "$DATA" --run "$OUT/run" "${CHOSEN[@]}" --requests users:5% --plain \
  --canaries "${CANARIES:-0}" --processes "${PROCESSES:-1}"
if [ -n "${MMREC:-}" ] && [ -n "${TORCH_PYTHON:-}" ]; then
  LIMIT=100 part benchmarks/reference.py "$OUT/reference.json" --mmrec "$MMREC" --python "$TORCH_PYTHON" --data "$DATA" --rounds 2 \
    --workers reference ours
else
  echo "accelerator.sh: no reference; MMREC and TORCH_PYTHON are not set"
fi
LIMIT=90 part benchmarks/step.py "$OUT/step_frozen.json" --data "$DATA" "${CHOSEN[@]}" --frozen
LIMIT=90 part benchmarks/stacked.py "$OUT/stacked.json" --models "${MODELS:-16}" ${STACKED:-} "${CHOSEN[@]}"
XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_deterministic_ops=true" LIMIT=90 part benchmarks/stacked.py "$OUT/deterministic.json" --models 1 \
  ${STACKED:-} "${CHOSEN[@]}"
