"""`cosearch teacher --seeds N`: teachers of several seeds, trained by workers and kept in run folders; the best is the result.

The best is the one with the highest score on training levels, so that the score on held-out levels, which the file tells, had no
part in the choice. Where a task has no levels both are of the same episodes, and the score of the best of N is a bit too good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cosearch.config.run import with_seed
from cosearch.fleet.cluster import HERE, Cluster
from cosearch.fleet.folder_making import FolderMaking, seen_by_workers
from cosearch.fleet.folder_work import FolderJob, FolderMade, TextProgress, make_folder
from cosearch.fleet.folders import recover
from cosearch.fleet.log import WorkLog
from cosearch.fleet.work import Send
from cosearch.fleet.workers import Workers
from cosearch.planning.needs import needs_of
from cosearch.record.durable import write_bytes_atomic
from cosearch.record.failures import write_failures
from cosearch.record.rundir import RunDir, as_folder_name, only_writer
from cosearch.rl.teacher import TeacherRecord, read_record
from cosearch.rl.typed import number, typed
from cosearch.teachers.train import TeacherPlan, TeacherRequest, check_out, open_run, plan_teacher, teach
from cosearch.training.carried import carried
from cosearch.training.threads import set_threads
from latency_tables.errors import RunFailedError, RunFolderError
from latency_tables.text.writing import make_folder as make_place

TEACHER = "teacher.json"
WAIT_S = 5.0  # for another process on the same teachers; workers of a killed one need a moment to end


@dataclass(frozen=True)
class TeacherJob:
    """What a worker trains a teacher from.

    Attributes:
        request: of the teacher.
        command: the command line, for the record.
    """

    request: TeacherRequest
    command: str


@dataclass(frozen=True)
class SeedTeacher:
    """One of them.

    Attributes:
        seed: of it.
        teacher: its file.
        score_mean, score_ci95, episodes: on held-out levels.
        score_train_mean: on training levels.
    """

    seed: int
    teacher: str
    score_mean: float
    score_ci95: tuple[float, float] | None
    episodes: int
    score_train_mean: float


@dataclass(frozen=True)
class Teachers:
    """The teachers of several seeds.

    Attributes:
        trained: those that are trained.
        failed: why the others failed, by the name of their run folder.
        best: the one with the highest score on training levels.
        provenance: of that one.
    """

    trained: tuple[SeedTeacher, ...]
    failed: Mapping[str, str]
    best: SeedTeacher
    provenance: Mapping[str, object]

    def to_json(self) -> dict[str, object]:
        """For ``--json``: the best one's provenance, and what each is worth."""
        return {**self.provenance, "teachers": [asdict(one) for one in self.trained], "failed": dict(self.failed)}


def train_teachers(
    request: TeacherRequest,
    count: int,
    out: Path,
    runs: Path,
    command: str,
    tell: Callable[[str], None],
    *,
    jobs: int | None = None,
    cluster: Cluster = HERE,
) -> Teachers:
    """Train the teachers that are missing, go on with those that were interrupted, and write the best one.

    Args:
        request: of each, with the first seed. No threads: one each.
        count: of the seeds.
        out: the JSON file that gets the best one; the weights go beside it.
        runs: gets the folder with their run folders.
        command: the command line, for the records.
        tell: is told what happens, one line each.
        jobs: at once, each in a process of its own; None: one here, as many as a cluster has room for.
        cluster: where they are trained.

    Returns:
        All of them; ``failures.json`` in their folder names those that failed, ``workers.json`` says what each process did.

    Raises:
        RequestError, ConfigError, UnknownNameError: see ``cosearch.teachers.train.train_teacher``.
        RunFolderError: a run folder belongs to another request, or another process works on the same teachers.
        RunFailedError: all of them failed.
    """
    check_out(out)
    plan = plan_teacher(replace(request, threads=request.threads or 1))
    plans = {f"s{seed}": _of_seed(plan, seed) for seed in range(request.seed, request.seed + count)}
    RunDir.check_new(runs, None)
    make_place(out.parent)
    folder = (runs / as_folder_name("teacher", plan.request.env, plan.request.network, "seeds")).resolve()
    make_place(folder)
    in_use = f"another process trains the teachers in {folder}: the same command goes on once that has ended; or use other --runs"
    with only_writer(folder, in_use, WAIT_S):
        failed = _train(folder, plans, command, tell, jobs, cluster)
        write_failures(folder, failed)
    files = [folder / name / TEACHER for name in plans]
    records = [read_record(file) for file in files if file.is_file()]
    if not records:
        raise RunFailedError(f"no teacher was trained: {'; '.join(f'{name}: {reason}' for name, reason in failed.items())}")
    trained = tuple(map(worth_of, records))
    best = max(trained, key=lambda one: one.score_train_mean)
    record = records[trained.index(best)]
    write_bytes_atomic(out.with_suffix(".safetensors"), record.weights_path.read_bytes())
    write_bytes_atomic(out, record.path.read_bytes())
    return Teachers(trained, failed, best, record.provenance)


def worth_of(record: TeacherRecord) -> SeedTeacher:
    """What a teacher is worth, by its own file.

    Args:
        record: of the teacher.

    Raises:
        RunFolderError: the file does not say it.
    """
    known = record.provenance
    try:
        low_high = None if known["score_ci95"] is None else [number(value) for value in typed(list, known["score_ci95"])]
        score, train = number(known["score_mean"]), number(known["score_train_mean"])
        interval = None if low_high is None else (low_high[0], low_high[1])
        return SeedTeacher(typed(int, known["seed"]), str(record.path), score, interval, typed(int, known["episodes"]), train)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RunFolderError(f"{record.path} does not say what the teacher is worth: {error}; move its folder away") from error


def make_teacher(job: FolderJob[TeacherJob], send: Send) -> FolderMade:
    """One teacher in a worker process.

    Args:
        job: which one.
        send: gets lines of text.
    """
    set_threads(1)  # until its own are set

    def make(folder: Path, progress: TextProgress) -> None:
        plan = plan_teacher(job.content.request)
        run = open_run(plan, folder, job.name, job.content.command)
        teach(plan, run, run.path / TEACHER, job.content.command, progress)

    return make_folder(job, send, make)


def _of_seed(plan: TeacherPlan, seed: int) -> TeacherPlan:
    return replace(plan, request=replace(plan.request, seed=seed), config=with_seed(plan.config, seed))


def _train(
    folder: Path,
    plans: Mapping[str, TeacherPlan],
    command: str,
    tell: Callable[[str], None],
    jobs: int | None,
    cluster: Cluster,
) -> Mapping[str, str]:
    """Train those that are missing; why some of them failed, by name."""
    for name, plan in plans.items():
        recover(folder / name)
        if (folder / name).exists():
            open_run(plan, folder, name, command)  # raises where it belongs to another request
    configs = [plan.config for plan in plans.values()]
    with (
        seen_by_workers(folder, cluster) as place,
        carried(configs, cluster) as files,
        WorkLog(folder, tell) as log,
        Workers(make_teacher, cluster.engine(jobs, files.folder), needs_of(configs[0])) as workers,
    ):
        work = [
            FolderJob(place, name, TeacherJob(plan.request, command))
            for name, plan in plans.items()
            if not (folder / name / TEACHER).is_file()
        ]
        return FolderMaking(folder, work, log, tell).make(workers)
