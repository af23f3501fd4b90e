#!/usr/bin/env bash
# Optuna 5.0.0: `heartbeat_interval` of RDBStorage finds a killed worker's trial only where that worker was inside
# `study.optimize`. One that took its trial by `study.ask()`, as loops of one's own do, beats never, so its trial
# stays RUNNING for good, in the same storage, and the sampler keeps away from its point. JournalStorage, made for
# many workers on a shared disk, has no heartbeat at all.
# Seen: "state of a killed worker's trial after the grace period: optimize FAIL, ask RUNNING, ask on a journal
# RUNNING".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet optuna==5.0.0 || exit 69
cd "$folder"
cat > worker.py <<'PYTHON'
import sys
import time
import warnings
from pathlib import Path

import optuna
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)


def storage(name):
    if name == "journal":
        return JournalStorage(JournalFileBackend("journal.log"))
    return RDBStorage(f"sqlite:///{name}.db", heartbeat_interval=1, grace_period=2)


def objective(trial):
    trial.suggest_float("x", 0, 1)
    Path(f"{sys.argv[1]}.started").touch()
    time.sleep(60)


if __name__ == "__main__":
    study = optuna.load_study(study_name="s", storage=storage(sys.argv[1]))
    if sys.argv[1] == "optimize":
        study.optimize(objective, n_trials=1)
    objective(study.ask())
PYTHON
"$folder/venv/bin/python" - <<'PYTHON'
import subprocess
import sys
import time
from pathlib import Path

import optuna
from worker import storage

states = []
for name in ("optimize", "ask", "journal"):
    study = optuna.create_study(study_name="s", storage=storage(name))
    child = subprocess.Popen([sys.executable, "worker.py", name])
    while not Path(f"{name}.started").exists() and child.poll() is None:
        time.sleep(0.2)
    time.sleep(2)  # one beat at least
    child.kill()
    child.wait()
    time.sleep(6)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    states.append(study.trials[0].state.name)
print("state of a killed worker's trial after the grace period:",
      "optimize {}, ask {}, ask on a journal {}".format(*states))
sys.exit(states != ["FAIL", "RUNNING", "RUNNING"])
PYTHON
