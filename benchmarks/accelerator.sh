#!/bin/bash
# The whole column of an accelerator in one call of at most eight minutes: step, floors, evaluation, Gold and unlearning at the size of
# Amazon-Baby with 4,480 feature columns, trained and frozen; MMRec's MGCN beside it where MMREC and TORCH_PYTHON say where they are.
#
#     benchmarks/accelerator.sh [OUT]      JSON in OUT, runs/accelerator where it is not given
#
# USERS, ITEMS, WIDTH, MODALITIES, CANARIES, PRESET and SET (single settings) make it smaller, for a trial. A part that is cut off is said so
# and the next one begins.
set -u
cd "$(dirname "$0")/.."
OUT=${1:-runs/accelerator}
PYTHON=${PYTHON:-python}
export JAX_DEFAULT_MATMUL_PRECISION=highest  # float32 is float32 on a GPU too
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
LIMIT=70 part benchmarks/step.py "$OUT/step.json" --data "$DATA" "${CHOSEN[@]}"
LIMIT=60 part benchmarks/step.py "$OUT/step_frozen.json" --data "$DATA" "${CHOSEN[@]}" --frozen
LIMIT=210 part benchmarks/unlearning.py "$OUT/unlearning.json" --data "$DATA" --run "$OUT/run" "${CHOSEN[@]}" --requests users:5% --plain \
  --canaries "${CANARIES:-20}" --processes 1
if [ -n "${MMREC:-}" ] && [ -n "${TORCH_PYTHON:-}" ]; then
  LIMIT=120 part benchmarks/reference.py "$OUT/reference.json" --mmrec "$MMREC" --python "$TORCH_PYTHON" --data "$DATA" --rounds 2
else
  echo "accelerator.sh: no reference; MMREC and TORCH_PYTHON are not set"
fi
