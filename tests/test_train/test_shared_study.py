"""A search that several workers share: each trial has one of them, the dead are replaced, and nothing is done twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import yaml

from deepfer_yolo.errors import ConfigError, DeepferError, TrainingError
from deepfer_yolo.presets import resolve
from deepfer_yolo.recipe import Choices, Range, TrainConfig, TuneConfig
from deepfer_yolo.records import Json
from deepfer_yolo.runs import state_of
from deepfer_yolo.train.shared_study import RETRIES, SharedStudy, settings_of, storage_url
from deepfer_yolo.train.study import Lost
from deepfer_yolo.train.tune import resume, tune

SPACE: dict[str, Range | Choices] = {"lr0": Range(low=0.01, high=0.2, log=True), "mixup": Choices(choices=(0.0, 0.2))}
SECRET = "p@ss/w%rd:1"
ESCAPED = "p%40ss%2Fw%25rd%3A1"
POSTGRESQL = Path("/usr/lib/postgresql/15/bin")


def quiet(_: str) -> None:
    """Show nothing."""


@pytest.fixture
def join(tmp_path: Path) -> Callable[..., SharedStudy]:
    """One more worker of the search in a file of SQLite."""

    def joined(worker: str, settings: Json | None = None, **more: object) -> SharedStudy:
        config = TuneConfig(trials=3, startup_trials=2, space=SPACE, storage=f"sqlite:///{tmp_path / 'x.db'}")
        return SharedStudy(worker, config.model_copy(update=more), settings or {"data": "1"})

    return joined


def silence(study: SharedStudy, trial: object) -> None:
    """Let the last sign of life of a trial be an hour old, as the database sees it."""
    with sqlite3.connect(str(study.url.database)) as database:
        changed = database.execute(
            "UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour') WHERE trial_id = ?",
            (trial._trial_id,),  # type: ignore[attr-defined]
        )
    assert changed.rowcount == 1
    database.close()


def test_workers_get_trials_of_their_own_and_never_more_than_there_are(join: Callable[..., SharedStudy]) -> None:
    one, two = join("one"), join("two")
    trials = [one.ask(), two.ask(), one.ask()]
    assert [trial and trial.number for trial in trials] == [0, 1, 2]
    assert len({trial.params["lr0"] for trial in trials if trial}) == 3
    assert one.ask() is two.ask() is None
    assert join("three").left() is None
    left = join("two").left()
    assert left is not None
    assert (left.number, left.params) == (1, trials[1] and trials[1].params)
    more = join("three", trials=4)
    assert (one.n_trials, join("four", trials=2).n_trials) == (4, 4)
    again = more.ask()
    assert again is not None
    assert again.number == 3


def test_the_trial_of_a_dead_worker_is_begun_anew_and_its_late_result_is_refused(
    join: Callable[..., SharedStudy],
) -> None:
    one, two = join("one"), join("two")
    first, second = one.ask(), two.ask()
    assert first
    assert second
    assert one.report(first, 1, 0.9) is False
    silence(one, first)
    anew = two.ask()
    assert anew
    assert (anew.number, two.slot(anew), anew.params) == (2, 0, first.params)
    assert one.left() is None
    with pytest.raises(Lost):
        one.report(first, 2, 0.9)
    with pytest.raises(Lost):
        one.tell(first, 0.9)
    two.tell(anew, 0.5)
    two.tell(second, 0.4)
    third = one.ask()
    assert third
    one.tell(third, None)
    found = [(trial.trial, trial.state, trial.value) for trial in one.ended()]
    assert found == [(0, "complete", 0.5), (1, "complete", 0.4), (2, "fail", None)]
    assert two.ask() is None


def test_a_trial_that_kills_its_workers_ends_as_failed(join: Callable[..., SharedStudy]) -> None:
    study = join("one", trials=1)
    for _ in range(RETRIES + 1):
        trial = study.ask()
        assert trial
        assert study.slot(trial) == 0
        silence(study, trial)
    assert study.ask() is None
    assert [(trial.trial, trial.state) for trial in study.ended()] == [(0, "fail")]


def test_a_worker_that_died_while_it_asked_holds_no_trial(join: Callable[..., SharedStudy]) -> None:
    one, two = join("one"), join("two")
    with pytest.warns(UserWarning, match="Heartbeat"):
        one.study.ask()  # and no sign of life: Optuna alone would never find out
    trial = two.ask()
    assert trial
    assert trial.number == 0
    assert trial.params.keys() == SPACE.keys()


def test_a_worker_that_died_while_it_asked_for_a_repetition_holds_none(join: Callable[..., SharedStudy]) -> None:
    one, two, three = (join(name) for name in ("one", "two", "three"))
    first = one.ask()
    assert first
    silence(one, first)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        optuna.storages.fail_stale_trials(two.study)
    with pytest.warns(UserWarning, match="Heartbeat"):
        two.study.ask()  # the repetition, which bears a copy of the first one's attributes
    assert one.left() is None
    anew = three.ask()
    assert anew
    assert (anew.number, three.slot(anew)) == (1, 0)


def test_signs_of_life_come_while_a_trial_runs(join: Callable[..., SharedStudy]) -> None:
    study = join("one", heartbeat_s=1)
    trial = study.ask()
    assert trial
    silence(study, trial)
    with study.alive(trial):
        time.sleep(2.5)
    assert join("two").ask().number == 1


def test_other_settings_are_refused_by_name(
    join: Callable[..., SharedStudy], tiny_config: TrainConfig, tmp_path: Path
) -> None:
    file = tmp_path / "start.pt"
    file.write_bytes(b"weights")
    recipe = tiny_config.model_copy(update={"pretrained": str(file)})
    join("one", settings_of(TuneConfig(space=SPACE), recipe, "f1"))
    moved = file.rename(tmp_path / "moved.pt")
    same = recipe.model_copy(update={"pretrained": str(moved), "device": "0", "threads": 9})
    join("two", settings_of(TuneConfig(space=SPACE, trials=50), same, "f1"))
    moved.write_bytes(b"others")
    other = same.model_copy(update={"epochs": 9})
    with pytest.raises(ConfigError, match=r"pretrained \(.*epochs \(3 there, 9 here\).*data \(f1 there, f2 here\)"):
        join("three", settings_of(TuneConfig(space=SPACE), other, "f2"))


@pytest.mark.parametrize(
    "address",
    [f"postgresql:/me:{ESCAPED}@host/x", f"postgresql://me:{ESCAPED}@host:port/x", f"mysql://me:{ESCAPED}@host/x",
     f"postgresql://me:{ESCAPED}@host", ESCAPED, "sqlite://", "sqlite:///:memory:", "sqlite:////no/such/folder/x.db"],
)  # fmt: skip
def test_what_workers_cannot_share_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="--storage") as refusal:
        storage_url(address)
    assert ESCAPED not in f"{refusal.value} {refusal.value.hint}"


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepfer_yolo.errors.find_spec", lambda _: None)
    with pytest.raises(DeepferError) as refusal:
        storage_url("postgresql://me@host/x")
    assert "[postgresql]" in str(refusal.value.hint)


def test_a_worker_that_was_stopped_goes_on_with_its_trial(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tiny_config.model_copy(update={"epochs": 2})
    settings = TuneConfig(trials=2, startup_trials=1, space=SPACE, storage="sqlite:///search.db", heartbeat_s=60)
    whole = tune(settings, recipe, name="whole", show=quiet)
    asked = 0

    def stop_in_the_first_trial() -> bool:
        nonlocal asked
        asked += 1
        return asked == 6

    parted = tune(
        settings.model_copy(update={"study": "again"}), recipe, name="parted", show=quiet,
        should_stop=stop_in_the_first_trial,
    )  # fmt: skip
    assert parted.stopped
    assert state_of(parted.folder) == "finished"  # with a table of what there is
    lines: list[str] = []
    again = resume(parted.folder, show=lines.append)
    assert any("resuming" in line for line in lines)
    assert again.trials == whole.trials
    own = tune(TuneConfig(trials=1, space=SPACE), recipe, name="own", show=quiet)
    with pytest.raises(ConfigError, match="is not shared"):
        resume(own.folder, limits={"storage": "sqlite:///search.db"}, show=quiet)


class Cluster:
    """PostgreSQL of the test's own: a folder, a port on loopback, one user with a password."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"postgresql://me:{ESCAPED}@127.0.0.1:{self.port}/postgres"

    def run(self, program: str, *words: object) -> None:
        command = [POSTGRESQL / program, "-D", self.folder / "data", *map(str, words)]
        subprocess.run(command, cwd="/", check=True, stdout=subprocess.DEVNULL, **self.user)  # type: ignore[call-overload]

    def start(self) -> None:
        (self.folder / "password").write_text(SECRET)
        if self.user:
            shutil.chown(self.folder, "postgres", "postgres")
            shutil.chown(self.folder / "password", "postgres", "postgres")
        self.run("initdb", "-U", "me", "-A", "scram-sha-256", "--pwfile", self.folder / "password", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder} -F"
        self.run("pg_ctl", "start", "-w", "-l", self.folder / "log", "-o", options)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    if not (POSTGRESQL / "initdb").is_file():
        pytest.skip(f"no PostgreSQL at {POSTGRESQL}")
    pytest.importorskip("psycopg")
    folder = Path("/tmp") / f"deepfer-postgresql-{os.getpid()}"  # which the user postgres can reach
    folder.mkdir(mode=0o700)
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            made.run("pg_ctl", "stop", "-m", "immediate")
        shutil.rmtree(folder)


class Worker:
    """`deepfer tune` as a process."""

    def __init__(self, folder: Path, dataset: Path, storage: str, name: str) -> None:
        words = ["tune", dataset, "--config", "recipe.yaml", "--space", "space.yaml", "--name", name, "--json"]
        self.folder, self.name = folder, name
        self.output = (folder / f"{name}.txt").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deepfer_yolo", "--debug", *map(str, words), "--storage", storage],
            cwd=folder, stdout=self.output, stderr=subprocess.STDOUT,
        )  # fmt: skip

    @property
    def run(self) -> Path:
        return self.folder / "runs/tune" / self.name

    def table(self) -> list[Json]:
        """The trials of its metrics.json."""
        found: list[Json] = json.loads((self.run / "metrics.json").read_text())["trials"]
        return found


def search(folder: Path, tiny_yaml: Path, dataset: Path, storage: str) -> None:
    """Three workers, of which one is killed in the middle of a trial; six trials in the end, each once."""
    recipe = {"model": str(tiny_yaml), "imgsz": 32, "batch": 35, "threads": 1, "epochs": 3}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    space = {"trials": 6, "heartbeat_s": 1, "startup_trials": 6, "space": {"lr0": {"low": 0.01, "high": 0.2}}}
    (folder / "space.yaml").write_text(yaml.safe_dump(space))
    workers = [Worker(folder, dataset, storage, name) for name in ("a", "b", "c")]
    try:
        victim, *others = workers
        deadline = time.monotonic() + 300
        while not list(victim.run.glob("train/*/weights/state-*.pt")):  # it is in the middle of a trial
            assert victim.process.poll() is None, (folder / "a.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        victim.process.send_signal(signal.SIGKILL)
        ends = [worker.process.wait(timeout=300) for worker in others]
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
            worker.output.close()
    assert ends == [0, 0], "".join((folder / f"{name}.txt").read_text() for name in "bc")
    one, two = (worker.table() for worker in others)
    assert one == two
    assert sorted(int(trial["trial"]) for trial in one) == list(range(6))
    assert [trial["state"] for trial in one] == ["complete"] * 6
    assert [trial["epochs"] for trial in one] == [3] * 6
    assert len({trial["params"]["lr0"] for trial in one}) == 6
    # Each figure is that of one finished training, of a survivor or of the dead one before its death.
    done = [json.loads(path.read_text())["val"]["top1"] for path in folder.glob("runs/tune/*/train/*/metrics.json")]
    assert sorted(done) == sorted(float(trial["value"]) for trial in one)
    texts = [path.read_text() for path in [*folder.glob("runs/tune/*/best.yaml")]]
    assert len(texts) == 2
    assert len(set(texts)) == 1
    assert resolve(TrainConfig, str(others[0].run / "best.yaml")).lr0 == one[0]["params"]["lr0"]


@pytest.mark.slow
def test_three_workers_of_which_one_is_killed_share_a_search_in_sqlite(
    tmp_path: Path, tiny_yaml: Path, painted_dataset: Path
) -> None:
    search(tmp_path, tiny_yaml, painted_dataset, f"sqlite:///{tmp_path / 'search.db'}")


@pytest.mark.slow
def test_three_workers_of_which_one_is_killed_share_a_search_in_postgresql(
    tmp_path: Path, tiny_yaml: Path, painted_dataset: Path, cluster: Cluster
) -> None:
    search(tmp_path, tiny_yaml, painted_dataset, cluster.url)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix not in {".pt", ".png"}]
    assert {path.name for path in written} >= {"a.txt", "b.txt", "config.yaml", "env.json", "log.txt"}
    for path in written:
        assert SECRET not in path.read_text(errors="replace"), path
        assert ESCAPED not in path.read_text(errors="replace"), path
    assert yaml.safe_load((tmp_path / "runs/tune/b/config.yaml").read_text())["storage"].startswith(
        "postgresql+psycopg://***@127.0.0.1"
    )
    with pytest.raises(ConfigError, match="has a secret, which is not recorded"):
        resume(tmp_path / "runs/tune/b", show=quiet)
    again = resume(tmp_path / "runs/tune/b", limits={"storage": cluster.url}, show=quiet)
    assert len(again.trials) == 6


@pytest.mark.parametrize("wrong", [f"me:{ESCAPED}@127.0.0.1:9/x", f"me:{ESCAPED}@no.such.host.invalid/x"])
def test_a_database_that_is_not_there_is_one_clear_line_without_the_password(
    wrong: str, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    pytest.importorskip("psycopg")
    settings = TuneConfig(space=SPACE, storage=f"postgresql://{wrong}")
    with pytest.raises(TrainingError, match=r"postgresql\+psycopg://\*\*\*@.* cannot be read or written") as refusal:
        tune(settings, tiny_config, root=tmp_path, show=quiet)
    text = f"{refusal.value} {refusal.value.hint}"
    assert SECRET not in text
    assert ESCAPED not in text
    assert refusal.value.__suppress_context__
    assert list(tmp_path.iterdir()) == []
