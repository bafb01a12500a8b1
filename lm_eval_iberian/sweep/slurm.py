"""`iberian slurm SWEEP`: a job script for Slurm that a person can read, change and send off.

Three shapes: one job on one node; an array (each task a part of the points, with a store of its own); Ray (one job
on several nodes, engines wherever there is room). All of them stop two minutes before their time limit and go back
into the queue; what was answered is kept, and the next start goes on.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lm_eval_iberian.runs.errors import SweepError
from merge_hooks.texts import one_line, seen

# So long before its time limit a job is told to stop (seconds): a running batch must end, nothing else.
NOTICE_SECONDS = 120


@dataclass(frozen=True)
class Script:
    """What a job script says.

    Args:
        name: of the job.
        command: the words of `iberian sweep`, without what the shape adds.
        folder: where it is run; relative paths are meant from here.
        run: the run folder.
        options: of sbatch: name -> value; "" for those without one.
        environment: variables that are set.
        activate: the script that activates the virtual environment.
        array: how many tasks; 0: no array.
        ray_nodes: on how many nodes Ray is started; 0: no Ray.
        written_by: the command line, for the head of the script.
    """

    name: str
    command: Sequence[str]
    folder: Path
    run: Path
    options: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    activate: Path | None = None
    array: int = 0
    ray_nodes: int = 0
    written_by: str = "iberian slurm"

    def text(self) -> str:
        """The script."""
        parts = [self._head(), self._options(), self._place(), AGAIN]
        parts += [RAY, self._start('--ray "$address"')] if self.ray_nodes else [self._start(self._shard())]
        return "\n".join(parts)

    def _head(self) -> str:
        lines = [f"{self.name}: a sweep {self._shape()}.", f"Written by: {self.written_by}", "",
                 "Send it off: sbatch THIS-FILE",
                 f"When {'all tasks have' if self.array else 'it has'} ended: "
                 f"iberian report {word(self.run)}", "",
                 "Cut at its time limit, preempted, or its node lost: it is queued again and goes on. Killed for good:",
                 "sent off again, it goes on."]  # fmt: skip
        return "#!/bin/bash\n" + "".join(f"# {one_line(line)}".rstrip() + "\n" for line in lines)

    def _shape(self) -> str:
        if self.array:
            return f"in an array of {self.array} tasks, each with a part of the points and a store of its own"
        return f"on {self.ray_nodes} nodes, by Ray" if self.ray_nodes else "on one node"

    def _options(self) -> str:
        said = {"job-name": self.name, "output": f"{self.name}-{'%A_%a' if self.array else '%j'}.log"}
        said |= {"array": f"1-{self.array}"} if self.array else {}
        said |= {"nodes": str(self.ray_nodes or 1), "ntasks-per-node": "1"}
        said |= {"open-mode": "append", "requeue": "", "signal": f"B:USR1@{NOTICE_SECONDS}"}
        said |= self.options
        return "".join(f"#SBATCH --{name}{f'={_option(value)}' if value else ''}\n" for name, value in said.items())

    def _place(self) -> str:
        lines = ["set -euo pipefail", f"cd {word(self.folder)}"]
        if self.activate is not None:
            lines += ["# shellcheck disable=SC1091", f"source {word(self.activate)}"]
        lines += [f"export {name}={word(value)}" for name, value in self.environment.items()]
        return "".join(f"{line}\n" for line in lines)

    def _shard(self) -> str:
        return f'--shard "$SLURM_ARRAY_TASK_ID/{self.array}"' if self.array else ""

    def _start(self, more: str) -> str:
        return START.format(command=f"{' '.join(map(word, self.command))} {more}".rstrip())


AGAIN = f"""\
# Slurm says USR1 {NOTICE_SECONDS} s before the time limit: stop, and go back into the queue.
sweep=
again() {{
  echo "$(date): the time is nearly up; what was answered is kept"
  if [ -n "$sweep" ]; then
    kill -TERM "$sweep" || true
    wait "$sweep" || true
  fi
  scontrol requeue "$SLURM_JOB_ID" || echo "It could not be queued again: send it off once more, and it goes on."
  exit 0
}}
trap again USR1
"""

START = """\
{command} &
sweep=$!
wait "$sweep"
"""

RAY = """\
# Ray: its head on the first node, which is this one, and a worker on each of the others.
export RAY_USAGE_STATS_ENABLED=0
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}"
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$head:$((20000 + SLURM_JOB_ID % 10000))  # two jobs on one node do not meet
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
srun --nodes=1 --ntasks=1 --nodelist="$head" \\
  ray start --head --node-ip-address="$head" --port="${address##*:}" --num-cpus="$SRUN_CPUS_PER_TASK" \\
  --include-dashboard=false --block &
others=$((SLURM_JOB_NUM_NODES - 1))
if [ "$others" -gt 0 ]; then
  # A worker that comes too early, or falls out, asks again.
  # shellcheck disable=SC2016  # they are meant for the nodes' own shells
  srun --nodes="$others" --ntasks="$others" --exclude="$head" --no-kill --kill-on-bad-exit=0 \\
    bash -c 'for try in {1..30}; do ray start --address="$0" --num-cpus="$1" --block && break; sleep 5; done' \\
    "$address" "$SRUN_CPUS_PER_TASK" &
fi
export IBERIAN_RAY_NODES="$SLURM_JOB_NUM_NODES"  # the sweep waits for so many
"""


def word(value: object) -> str:
    """What a person or a file says, as one word of a shell, whatever is in it: all of it goes into a script through here.

    Raises:
        SweepError: it holds a line break or another control character, which no path or option needs.
    """
    text = str(value)
    if seen(text) != text or "\n" in text:
        raise SweepError(
            f"{text!r}: a line break or another character that cannot be seen stands in it, so it is not written into a "
            "script. Give it another name."
        )
    return shlex.quote(text)


def _option(value: str) -> str:
    """As sbatch reads it: quotes around what has spaces. Raises SweepError as `word` does, and for quotes in it."""
    word(value)
    if '"' in value:
        raise SweepError(f"{value!r}: sbatch takes no option with quotes in it.")
    return f'"{value}"' if any(letter.isspace() for letter in value) else value
