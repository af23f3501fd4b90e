#!/bin/sh
# One retraining job: convert, audit, train, evaluate, gate, export, verify. Stops at the first step that fails, with its exit code:
# 3 the audit, the gate or the proof failed, 5 the test set is too small to decide, 1 an error, 130 interrupted (run again to resume).
#
#   SOURCE=fer2013.csv.gz AUDIT="--config fer2013" sh docs/ci/retrain.sh
set -eu

SOURCE=${SOURCE:?name the data: SOURCE=fer2013.csv.gz}
DATA=${DATA:-datasets/retrain}            # the converted data set
AUDIT=${AUDIT:-}                          # flags of deepfer audit, such as --config fer2013
TRAIN=${TRAIN:-"--config fer2013-n --model deepfer-n"}   # flags of deepfer train; it starts from the shipped model
GATE=${GATE:-}                            # flags of deepfer gate, such as --config strict
CHAMPIONS=${CHAMPIONS:-champions}         # who holds the title, and every decision
OUT=${OUT:-dist/model.onnx}               # what is deployed

[ -f "$DATA/dataset.json" ] || deepfer convert "$SOURCE" "$DATA"
# shellcheck disable=SC2086  # several flags in one variable
deepfer audit "$DATA" $AUDIT || {
    code=$?
    [ "$code" != 3 ] || echo "hint: flags of the audit go into AUDIT, such as AUDIT=\"--config fer2013\"" >&2
    exit "$code"
}

# The run is named by the data's fingerprint and the recipe: the same data and recipe are never trained twice.
fingerprint=$(sed -n 's/.*"fingerprint": *"\([0-9a-f]*\)".*/\1/p' "$DATA/dataset.json" | cut -c 1-12)
recipe=$({ printf '%s' "$TRAIN"; for word in $TRAIN; do [ ! -f "$word" ] || cat "$word"; done; } | cksum | cut -d ' ' -f 1)
run=runs/train/$fingerprint-$recipe
if [ -f "$run/metrics.json" ]; then
    echo "already trained: $run" >&2
elif [ -d "$run" ]; then
    deepfer train --resume "$run"
else
    # shellcheck disable=SC2086  # several flags in one variable
    deepfer train "$DATA" $TRAIN --name "$fingerprint-$recipe"
fi

deepfer evaluate "$DATA" --model "$run/weights/best.pt" --split test
# shellcheck disable=SC2086
deepfer gate "$DATA" --model "$run/weights/best.pt" --promote "$CHAMPIONS" $GATE
deepfer export "$CHAMPIONS/champion/model.pt" --format onnx --data "$DATA" --split test --out "$OUT" --overwrite
deepfer verify "$OUT"
