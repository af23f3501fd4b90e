#!/usr/bin/env bash
# What travels to a GPU machine besides the checkout: .gpu/ (data and backbone) and .whl/ (packages that it lacks).
#
#   bash docs/gpu/prepare.sh fer2013.csv.gz fer2013new.csv yolo26n-cls.pt [PYTHON]       PYTHON: the version there, 3.12
#
# The packages are those of constraints.txt that a machine with PyTorch, OpenCV, ONNX and the usual scientific ones does
# not have; WHEELS names others. polars, PyAV and lap are left out: no step here imports them.
set -euo pipefail
cd "$(dirname "$0")/../.."
table=$1 votes=$2 backbone=$3 python=${4:-3.12}
wheels=${WHEELS:-pydantic pydantic_core annotated-types platformdirs onnxslim ultralytics ultralytics-thop}
mkdir -p .gpu .whl
for name in $wheels; do
    pin=$(grep -i "^$name==" constraints.txt)
    python3 -m pip download -q --no-deps --only-binary=:all: --implementation cp --python-version "$python" \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d .whl "$pin"
done
export PYTHONPATH=$PWD
python3 docs/gpu/pack.py halve "$backbone" .gpu/backbone.pt
[ -f .gpu/fer2013.npz ] || python3 docs/gpu/pack.py make "$table" "$votes" .gpu/fer2013.npz
du -b -c .gpu/* .whl/* | sort -n
