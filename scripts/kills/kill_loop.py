"""Kill a CPU training at random moments, start it again with the same command, and compare it with an undisturbed one.

    python scripts/kills/kill_loop.py --kills 50 --seed 1 --out runs/kill_loop    # half a minute per kill
    python scripts/kills/kill_loop.py --kills 5 --seed 2 --out runs/five_kills --model runs/quickstart/base \\
        --data runs/quickstart/data-levels1-6

The same command resumes. It starts a tiny training behind ``scripts/train.sh``, sends SIGKILL to one of its processes
(the launcher, verl's driver, the trainer, a worker, a server, a process of Ray) or to all of them, waits for what comes
of it, and repeats the command, until the training is done; then the next training begins, until there are enough kills.
The moment is drawn uniformly in one of three phases: start-up, steps, the saving of a checkpoint. What is checked:

- a start that a kill ends says so with a status other than 0, within ``--patience-s``, and names what died;
- no start ends with status 0 before its last step is trained, logged and saved;
- the next start goes on from the last checkpoint, and the processes of the one before are gone within ``--linger-s``;
- a training whose launcher was killed keeps the folder to itself until it ends;
- in the end each step's metrics are those of the undisturbed run up to the order of sums (``--tolerance``).

Only processes in the sessions of its own starts are killed. OUT/events.jsonl has a line for each kill (moment, victim,
step, outcome, what was said), each end and each comparison; OUT/undisturbed and OUT/training-N are run folders. The
exit status is 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launched_training import (
    DRIVER,
    FATAL,
    HELPER,
    LAUNCHER,
    Start,
    Task,
    Training,
    comparable_metrics,
    differences,
    kill,
    kill_session,
    processes_of,
)

from verl_ispo.command_line import run_command
from verl_ispo.process_lock import take_lock
from verl_ispo.user_error import UserError

START_UP, STEP, CHECKPOINT = "start-up", "step", "checkpoint"
EVERYTHING = "everything"
POLL_S = 0.05
# A checkpoint takes a tenth of a second.
CHECKPOINT_POLL_S = 0.002
START_LIMIT_S = 900

Metrics = dict[int, dict[str, float]]


@dataclass(frozen=True)
class Moment:
    """When a process is killed.

    Attributes:
        phase (`str`): start-up, step or checkpoint.
        fraction (`float`): of the phase that passes first, uniform in [0, 1).
        ahead (`int`): in steps, how many steps the fraction is of; in checkpoints, which of the next ones it is.
    """

    phase: str
    fraction: float
    ahead: int


@dataclass(frozen=True)
class Durations:
    """Seconds that the phases take."""

    start_up: float
    step: float
    checkpoint: float


@dataclass(frozen=True)
class Settings:
    """How often, how long, how close.

    Attributes:
        kills (`int`): how many.
        seed (`int`): of moments and victims.
        tolerance (`float`): of the metrics, relative and absolute.
        patience_s (`float`): until a kill has ended its start, or two more steps are saved.
        linger_s (`float`): until the processes of an ended start are gone.
        fatal_only (`bool`, *optional*, defaults to `False`): choose only victims without which no training goes on,
            where there are some.
    """

    kills: int
    seed: int
    tolerance: float
    patience_s: float
    linger_s: float
    fatal_only: bool = False


class KillLoop:
    """The loop in one folder, and its record.

    Args:
        out (`Path`): of all that is written.
        task (`Task`): what is trained.
        settings (`Settings`): how it is disturbed.
    """

    def __init__(self, out: Path, task: Task, settings: Settings) -> None:
        self.out, self.task, self.settings = out, task, settings
        self.durations = Durations(0.0, 0.0, 0.0)
        self.record = out / "events.jsonl"
        self.session_file = out / "session.json"
        lines = self.record.read_text(encoding="utf-8").splitlines() if self.record.exists() else []
        self.events: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("}")]
        # sessions of ended starts that may still have processes, and since when; for how long some were no helpers
        self.ended: dict[int, float] = {}
        self.workers_gone: dict[int, float] = {}

    # --- the record

    def note(self, event: str, **what: Any) -> None:
        """Write one event; its ``findings``, what is not as it should be, are printed at once."""
        entry = {"event": event, "at": time.strftime("%Y-%m-%d %H:%M:%S"), **what}
        self.events.append(entry)
        with self.record.open("a", encoding="utf-8") as record:
            record.write(json.dumps(entry) + "\n")
        for finding in what.get("findings", ()):
            print(f"  NOT AS IT SHOULD BE: {finding}", flush=True)

    def of(self, event: str) -> list[dict[str, Any]]:
        """Events of one kind so far."""
        return [entry for entry in self.events if entry["event"] == event]

    @property
    def kills(self) -> int:
        """Kills so far."""
        return len(self.of("kill"))

    @property
    def findings(self) -> list[str]:
        """All that was not as it should be."""
        return [finding for entry in self.events for finding in entry.get("findings", ())]

    def summary(self) -> str:
        """How often each kind was killed and what came of it."""
        counts = Counter((entry["victim"], entry["outcome"]) for entry in self.of("kill"))
        lines = [f"{victim:20} {outcome:20} {count}" for (victim, outcome), count in sorted(counts.items())]
        phases = Counter(entry["phase"] for entry in self.of("kill"))
        lines.append(f"{self.kills} kills ({', '.join(f'{phase} {count}' for phase, count in sorted(phases.items()))})")
        trainings = f"{len(self.of('compared'))} training(s) compared at tolerance {self.settings.tolerance:g}"
        return "\n".join([*lines, f"{trainings}; {len(self.findings)} finding(s)", *self.findings])

    # --- starts

    def run(self) -> None:
        """An undisturbed run, all kills, and each training to its end."""
        self.end_what_an_earlier_call_left()
        expected = self.undisturbed()
        while self.kills < self.settings.kills or len(self.of("training")) > len(self.of("compared")):
            number = len(self.of("compared")) + 1
            if len(self.of("training")) < number:
                self.note("training", number=number)
            training = Training(self.out / f"training-{number}", self.task)
            self.kill_until_done(training)
            wrong = differences(comparable_metrics(training.folder), expected, self.settings.tolerance)
            self.note("compared", number=number, steps=training.logged(), findings=wrong[:20])
            print(f"training {number}: {'METRICS DIFFER' if wrong else 'metrics equal'}", flush=True)

    def end_what_an_earlier_call_left(self) -> None:
        """Kill the processes of a start whose loop was killed."""
        if not self.session_file.exists():
            return
        noted = json.loads(self.session_file.read_text(encoding="utf-8"))
        leader = [process for process in processes_of(noted["session"]) if process.pid == noted["session"]]
        # a session's number may be taken again once none of its processes is left
        if not leader or leader[0].born == noted["born"]:
            kill_session(noted["session"])
        self.session_file.unlink()

    def start(self, training: Training) -> Start:
        """Start, and note the session for a later call of this loop."""
        start = training.start()
        born = next((process.born for process in processes_of(start.session) if process.pid == start.session), 0)
        self.session_file.write_text(json.dumps({"session": start.session, "born": born}), encoding="utf-8")
        return start

    def undisturbed(self) -> Metrics:
        """The metrics of a run without a kill, which is made once; `durations` are its phases."""
        training = Training(self.out / "undisturbed", self.task)
        if not self.of("undisturbed"):
            print("the undisturbed run ...", flush=True)
            shutil.rmtree(training.folder, ignore_errors=True)
            start = self.start(training)
            self.wait(start, lambda: training.begins_loop(start))
            start_up = time.monotonic() - start.began
            self.wait(start, lambda: training.begins_checkpoint(1), CHECKPOINT_POLL_S)
            saving = time.monotonic()
            self.wait(start, lambda: training.saved() >= 1, CHECKPOINT_POLL_S)
            checkpoint = time.monotonic() - saving
            self.wait(start, lambda: training.saved() >= training.steps)
            step = (time.monotonic() - saving) / max(1, training.steps - 1)
            self.wait(start, lambda: False)
            if start.process.returncode:
                raise UserError(f"the undisturbed run ended with {start.process.returncode}; see {start.screen}")
            kill_session(start.session)
            self.note("undisturbed", start_up=start_up, step=step, checkpoint=checkpoint)
        noted = self.of("undisturbed")[-1]
        self.durations = Durations(noted["start_up"], noted["step"], noted["checkpoint"])
        return comparable_metrics(training.folder)

    def wait(
        self, start: Start, condition: Callable[[], bool], poll_s: float = POLL_S, limit_s: float = START_LIMIT_S
    ) -> bool:
        """Wait for a condition; whether it came before the end of the start and the limit."""
        until = time.monotonic() + limit_s
        while not condition():
            self.look_at_ended()
            if start.ended() or time.monotonic() > until:
                return condition()
            time.sleep(poll_s)
        return True

    def look_at_ended(self) -> None:
        """Note when the last process of an ended start is gone; one that stays too long is a finding.

        Ray's own helpers take a minute to give up a head that was killed; they write nothing of the run.
        """
        for session, since in list(self.ended.items()):
            seconds, left = round(time.monotonic() - since, 1), processes_of(session)
            if any(process.kind != HELPER for process in left) or session not in self.workers_gone:
                self.workers_gone[session] = seconds
            if left and seconds < self.settings.linger_s:
                continue
            titles = "; ".join(f"{process.kind} ({process.title[:100]})" for process in left)
            late = [f"{seconds:.0f} s after the end of their start there are still: {titles}"] if left else []
            workers = self.workers_gone.pop(session)
            self.note("gone", session=session, workers_s=workers, all_s=seconds, findings=late)
            kill_session(session)
            del self.ended[session]

    # --- kills

    def kill_until_done(self, training: Training) -> None:
        """Starts and kills, until the training is done and its processes are gone; Ray's last helpers are ended."""
        start: Start | None = None
        try:
            while training.done() < training.steps:
                if start is None or start.ended():
                    if start is not None:
                        self.ended[start.session] = time.monotonic()
                    start = self.start(training)
                if self.kills >= self.settings.kills:
                    self.wait(start, lambda: False)
                    self.note_end(training, start)
                    continue
                chance = random.Random(f"{self.settings.seed} {self.kills}")
                phases = (STEP, CHECKPOINT) if training.begins_loop(start) else (START_UP, STEP, CHECKPOINT)
                moment = Moment(chance.choice(phases), chance.random(), chance.randint(1, 2))
                if self.reach(training, start, moment):
                    self.kill_one(training, start, moment, chance)
                elif start.ended():
                    self.note_end(training, start)
            if start is not None:
                self.ended[start.session] = time.monotonic()
            while any(process.kind != HELPER for session in self.ended for process in processes_of(session)):
                self.look_at_ended()
                time.sleep(POLL_S)
        finally:
            for session in [*self.ended, *([start.session] if start is not None else [])]:
                kill_session(session)
            self.ended.clear()
            self.workers_gone.clear()
            self.session_file.unlink(missing_ok=True)

    def reach(self, training: Training, start: Start, moment: Moment) -> bool:
        """Wait for a moment; `False` if the start ended first."""
        if moment.phase == START_UP:
            until = start.began + moment.fraction * self.durations.start_up
            self.wait(start, lambda: time.monotonic() > until)
            return not start.ended()
        if not training.begins_loop(start):
            if not self.wait(start, lambda: training.begins_loop(start)):
                return False
            # a busy machine takes another time for the next one
            self.durations = replace(self.durations, start_up=time.monotonic() - start.began)
        if moment.phase == CHECKPOINT:
            wanted = min(training.saved() + moment.ahead, training.steps)
            self.wait(start, lambda: training.begins_checkpoint(wanted), CHECKPOINT_POLL_S)
            time.sleep(moment.fraction * self.durations.checkpoint)
        else:
            until = time.monotonic() + moment.fraction * moment.ahead * self.durations.step
            self.wait(start, lambda: time.monotonic() > until)
        return not start.ended()

    def kill_one(self, training: Training, start: Start, moment: Moment, chance: random.Random) -> None:
        """Kill, and note what comes of it."""
        living = processes_of(start.session)
        if not living:
            return
        kinds = {process.kind for process in living}
        if self.settings.fatal_only:
            kinds &= set(FATAL)
        victim = chance.choice([*sorted(kinds), EVERYTHING])
        of_kind = [process for process in living if victim in (process.kind, EVERYTHING)]
        chosen = of_kind if victim == EVERYTHING else [of_kind[0] if victim == DRIVER else chance.choice(of_kind)]
        logged, saved, killed_s = training.logged(), training.saved(), time.monotonic()
        kill(chosen)
        if victim == EVERYTHING:
            kill_session(start.session)
        outcome, findings = self.outcome(training, start, victim, saved)
        seconds = round(time.monotonic() - killed_s, 1)
        said = start.said() if outcome not in ("went on", "orphaned") and not start.orphaned else ""
        after_s = round(killed_s - start.began, 1)
        self.note(
            "kill",
            number=self.kills + 1,
            phase=moment.phase,
            fraction=round(moment.fraction, 3),
            victim=victim,
            title=chosen[0].title[:120] if victim != EVERYTHING else "",
            training=training.folder.name,
            after_s=after_s,
            logged=logged[-1] if logged else 0,
            saved=saved,
            outcome=outcome,
            status=start.process.poll(),
            seconds=seconds,
            said=said,
            screen=start.screen.name,
            findings=findings,
        )
        print(
            f"kill {self.kills} of {self.settings.kills}: {victim}, {moment.phase}, {after_s} s after the start, "
            f"checkpoint {saved}: {outcome} after {seconds} s{f' ({said[:160]})' if said else ''}",
            flush=True,
        )

    def outcome(self, training: Training, start: Start, victim: str, saved: int) -> tuple[str, list[str]]:
        """What a kill led to, and what about it is not as it should be."""
        if victim == EVERYTHING:
            start.process.wait()
            return "ended", []
        if victim == LAUNCHER:
            start.process.wait()
            start.orphaned = True
            return ("ended", []) if start.ended() else ("orphaned", self.start_beside_an_orphan(training, start))
        went_on = self.wait(start, lambda: training.saved() >= saved + 2, limit_s=self.settings.patience_s)
        if not start.ended():
            if went_on:
                return "went on", []
            kinds = ", ".join(sorted({process.kind for process in processes_of(start.session)}))
            kill_session(start.session)
            start.process.wait()
            return "hung", [f"{victim} killed: no end and no step in {self.settings.patience_s:g} s; alive: {kinds}"]
        if start.orphaned:
            return "ended", []
        if start.process.returncode == 0:
            self.note_end(training, start)
            return "went on to the end", []
        _, stopped, why = start.said().partition("stopped with status")
        return "ended", [] if stopped and ": " in why else [f"{victim} killed, and this is not said: {start.said()!r}"]

    def start_beside_an_orphan(self, training: Training, orphan: Start) -> list[str]:
        """The same command while a training still runs whose launcher is dead: refused, since the folder is busy."""
        second = training.start()
        status = second.process.wait(timeout=self.settings.patience_s)
        if (status == 1 and "another process works in" in second.text()) or orphan.ended():
            return []
        kill_session(second.session)
        return [f"a second start beside a running training ended with {status}: {second.said()!r}"]

    def note_end(self, training: Training, start: Start) -> None:
        """Check the end of a start that no kill ended."""
        status, logged = start.process.returncode, training.logged()
        expected = (training.steps, training.steps, list(range(1, training.steps + 1)))
        findings = []
        if status == 0 and (training.done(), training.saved(), logged) != expected:
            findings.append(f"status 0: {training.done()} done, {training.saved()} saved, {logged} logged")
        if status != 0 and not start.orphaned:
            findings.append(f"a start that nobody disturbed ended with {status}: {start.said()!r}; see {start.screen}")
        self.note("end", training=training.folder.name, status=status, saved=training.saved(), findings=findings)
        if len(findings) and len([entry for entry in self.of("end") if entry["findings"]]) > 5:
            raise UserError(f"{training.folder} does not come to its end; see {start.screen}")


def make_task(options: argparse.Namespace, ray_folder: Path) -> Task:
    """The task, with a warm-started model and problems in OUT where none are given."""
    for name, module, more in (
        ("model", "warm_start", ["--steps", "120", "--short-answer-steps", "10", "--held-out-per-level", "1"]),
        ("data", "make_data", ["--train-rows", "64"]),
    ):
        folder = (getattr(options, name) or options.out / name).resolve()
        setattr(options, name, folder)
        if not folder.exists():
            print(f"{folder} ...", flush=True)
            command = [sys.executable, "-m", f"verl_ispo.tiny_task.{module}", "--out", str(folder), *more]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Task(options.model, options.data, options.steps, options.workers, ray_folder, tuple(options.overrides))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of moments and victims (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=16, help="steps of each training (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="training workers (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder of all that is written")
    parser.add_argument("--model", type=Path, help="a model of tiny_task.warm_start (default: made in OUT)")
    parser.add_argument("--data", type=Path, help="problems of tiny_task.make_data (default: made in OUT)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of the metrics (default: %(default)s)")
    parser.add_argument("--patience-s", type=float, default=300, help="for what a kill leads to (default: %(default)s)")
    parser.add_argument("--linger-s", type=float, default=120, help="for processes after it (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="more Hydra overrides")
    return parser.parse_args(argv)


def run_loop(options: argparse.Namespace) -> int:
    """The loop in OUT, as its only one; returns the exit status."""
    out = options.out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    settings = Settings(options.kills, options.seed, options.tolerance, options.patience_s, options.linger_s)
    lock = take_lock(out / "lock", out, "killing trainings there", "give another --out")
    with lock, tempfile.TemporaryDirectory(prefix="kills", dir="/tmp", ignore_cleanup_errors=True) as ray_folder:
        loop = KillLoop(out, make_task(options, Path(ray_folder)), settings)
        loop.run()
    print(loop.summary())
    return 1 if loop.findings else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parse(argv)
    kept = f"{options.out} is kept, the same command resumes"
    return run_command("kill_loop", lambda: run_loop(options), kept)


if __name__ == "__main__":
    sys.exit(main())
