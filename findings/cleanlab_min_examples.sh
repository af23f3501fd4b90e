#!/usr/bin/env bash
# cleanlab 2.9.0: `min_examples_per_class` of `find_label_issues`, which is to keep that many images of each label, is
# read by three of the seven filters, which also warn where it keeps them from more; the other four take every image of
# a rare label for an issue, without a word.
# Seen: "of 6 images of the rare label, at least 6 to be kept, dropped: prune_by_noise_rate 0 (warns), prune_by_class 0
# (warns), both 0 (warns), confident_learning 6, predicted_neq_given 6, low_normalized_margin 6, low_self_confidence 6".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet cleanlab==2.9.0 numpy==2.4.6 scikit-learn==1.9.1 || exit 69
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import numpy as np
from cleanlab.filter import find_label_issues

random = np.random.RandomState(0)
labels = np.repeat([0, 1, 2], [200, 200, 6])
probs = random.dirichlet([0.3] * 3, len(labels))
probs[np.arange(len(labels)), labels] += 1.5 * random.rand(len(labels))
probs /= probs.sum(axis=1, keepdims=True)
probs[labels == 2] = [0.9, 0.05, 0.05]  # the rare label looks like another to the model
dropped = {}
for name in ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given",
             "low_normalized_margin", "low_self_confidence"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        issues = find_label_issues(labels, probs, filter_by=name, min_examples_per_class=6, n_jobs=1)
    dropped[name] = f"{issues[labels == 2].sum()}{' (warns)' if caught else ''}"
print("of 6 images of the rare label, at least 6 to be kept, dropped:",
      ", ".join(f"{name} {n}" for name, n in dropped.items()))
sys.exit(list(dropped.values()) != ["0 (warns)"] * 3 + ["6"] * 4)
PYTHON
