#!/usr/bin/env bash
# What a GPU is needed for, in one go: docs/gpu/README.md says what to carry and what each step measures.
#
#   OUT=folder bash docs/gpu/run.sh [STEP…]      steps: 1 speed, 2 accuracy, 3 training jobs, 4 TensorRT; all without any
#
# Each step has a limit of its own and leaves its record in $OUT, so that one that fails or is cut off costs no other.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
root=$PWD gpu=$PWD/docs/gpu
OUT=${OUT:-$root/runs/gpu}
WORK=${WORK:-/tmp/deepfer-gpu}                          # data, wheels and runs: stays between calls on one machine
PACK=${PACK:-$root/.gpu/fer2013.npz}
BACKBONE=${BACKBONE:-$root/.gpu/backbone.pt}
WHEELS=${WHEELS:-$root/.whl}
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-0}
STEP1_S=${STEP1_S:-200} STEP2_S=${STEP2_S:-100} STEP3_S=${STEP3_S:-240} STEP4_S=${STEP4_S:-60}
steps=${*:-1 2 3 4}
mkdir -p "$OUT" "$WORK/logs"
exec > >(tee -a "$OUT/log.txt") 2>&1
say() { printf '%s %4d s  %s\n' "$(date +%H:%M:%S)" "$SECONDS" "$*"; }

prepare() {
    if [ ! -d "$WORK/site" ] && compgen -G "$WHEELS/*.whl" >/dev/null; then
        "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$WORK/site" "$WHEELS"/*.whl || return 1
    fi
    export PYTHONPATH=$root:$WORK/site PYTHONUNBUFFERED=1 YOLO_CONFIG_DIR=$WORK/settings
    [ -d "$WORK/data" ] && return
    "$PYTHON" docs/gpu/pack.py unpack "$PACK" "$WORK/csv" || return 1
    "$PYTHON" -m deepfer_yolo convert "$WORK/csv/fer2013.csv" "$WORK/data" --ferplus "$WORK/csv/fer2013new.csv" >/dev/null
}

step() { # number, limit in seconds, command…
    local number=$1 limit=$2
    shift 2
    say "step $number, at most $limit s"
    timeout --kill-after=10 "$limit" "$@" || say "step $number ended with code $?"
    say "step $number is over"
}

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv,noheader 2>/dev/null || say "no nvidia-smi"
prepare || { say "nothing can be measured: the wheels or the data set are not there"; exit 1; }
say "ready: $("$PYTHON" -c 'import torch, ultralytics; print("torch", torch.__version__, "ultralytics", ultralytics.__version__, torch.cuda.is_available() and torch.cuda.get_device_name() or "no GPU")')"
common=(--out "$WORK" --device "$DEVICE" --data "$WORK/data")
for number in $steps; do
    case $number in
        1) # shellcheck disable=SC2086  # several flags in one variable
            step 1 "$STEP1_S" "$PYTHON" "$gpu/steps.py" speed "${common[@]}" ${SPEED:-} ;;
        2) step 2 "$STEP2_S" "$PYTHON" "$gpu/steps.py" accuracy "${common[@]}" ${ACCURACY:---limit-s 60} \
            --recipe "${RECIPE:---config fer2013-n --pretrained $BACKBONE --epochs 16 --batch 256}" ;;
        3) step 3 "$STEP3_S" env DATA="$WORK/data" RUNS="$WORK" DEVICE="$DEVICE" BACKBONE="$BACKBONE" PYTHON="$PYTHON" \
            bash "${JOBS:-$gpu/train_jobs.sh}" ;;
        4) step 4 "$STEP4_S" "$PYTHON" "$gpu/steps.py" tensorrt "${common[@]}" --model "$root/deepfer_yolo/models/deepfer-n.pt" ;;
        *) say "there is no step $number" ;;
    esac
done
"$PYTHON" "$gpu/steps.py" summary "${common[@]:0:4}"
cp "$WORK/summary.json" "$OUT/"
# Back in few files of bounded size: the records, and what was trained, the best first.
"$PYTHON" "$gpu/collect.py" "$WORK" "$OUT"
say "done; records in $OUT"
