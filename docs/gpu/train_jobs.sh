#!/usr/bin/env bash
# Step 3 of run.sh: trainings that run side by side on the one GPU, each a line of options of `deepfer train`.
#
# A small network leaves most of a large GPU idle and one processor core busy, so several processes together finish
# sooner than one after the other. DATA, RUNS, DEVICE, BACKBONE and PYTHON come from run.sh. Lines before `wait` run side
# by side; what follows it may use their checkpoints, in $RUNS/runs/train/NAME/weights/best.pt. When the step's time is
# over run.sh stops all of them, and what has been written by then is collected: best.pt is complete after every epoch.
set -uo pipefail
trap 'kill $(jobs -p) 2>/dev/null' EXIT
cd "$RUNS" || exit

job() { # NAME, options of deepfer train
    local name=$1
    shift
    "$PYTHON" -m deepfer_yolo train "$DATA" --device "$DEVICE" --threads 1 --name "$name" "$@" >"logs/$name.log" 2>&1 &
}

# shellcheck disable=SC2086
job small --config fer2013-n --pretrained "$BACKBONE" ${JOB_OPTIONS:-}
# shellcheck disable=SC2086
job wide --config fer2013-cnn --batch 512 ${JOB_OPTIONS:-}
wait
