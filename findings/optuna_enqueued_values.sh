#!/usr/bin/env bash
# Optuna 5.0.0: a value that `enqueue_trial` fixes is used though the range does not hold it: the trial warns, runs
# with it, is COMPLETE, and may become the best; an integer is cut to a value that its steps never give; and of equal
# choices the trial gets another than the study keeps (`True` runs, 1 is recorded). Ray Tune's `points_to_evaluate`
# goes the same way.
# Seen: "lr at most 0.1 ran with 5.0, best 5.0; n of 1, 4, 7, 10 ran with 2; choice of 0, 1, False, True: ran with
# True, kept 1".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet optuna==5.0.0 || exit 69
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import optuna

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)
study, used = optuna.create_study(), []
study.enqueue_trial({"lr": 5.0, "n": 2.7, "augment": True})


def objective(trial):
    used.extend([trial.suggest_float("lr", 1e-4, 0.1, log=True), trial.suggest_int("n", 1, 10, step=3),
                 trial.suggest_categorical("augment", [0, 1, False, True])])
    return 0.0


study.optimize(objective, n_trials=1)
kept = study.best_params
print(f"lr at most 0.1 ran with {used[0]}, best {kept['lr']}; n of 1, 4, 7, 10 ran with {used[1]};",
      f"choice of 0, 1, False, True: ran with {used[2]}, kept {kept['augment']}")
sys.exit(not (used[:2] == [5.0, 2] and kept["lr"] == 5.0 and used[2] is True and kept["augment"] is not True))
PYTHON
