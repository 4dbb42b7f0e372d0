"""Trains in a process that is killed again and again, each time at another moment. Run in a project's folder:

    python killed_runs.py KILLS SEED OUT ARGUMENTS_OF_TRAIN...

Every life is a fork of this process, which has imported PyTorch once. Half of the kills come at a random moment before
the second checkpoint of a life, so that a fast machine does not train to the end first; half come while a checkpoint is
being written. Prints as JSON at how many steps lives started, and how many died in a save.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path


def live(arguments: list[str], log: Path) -> int:
    """Start `train.py` in a fork, and return its process."""
    child = os.fork()
    if child:
        return child
    sys.argv = ["train.py", *arguments]
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 1
    try:
        import train

        train.main()
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> bool:
    """Tell whether a life ended by itself (AssertionError where it failed)."""
    done, status = os.waitpid(child, os.WNOHANG)
    assert done == 0 or status == 0, "the run failed: see its log"
    return done != 0


def main() -> None:
    """Kill, restart, and at last let the run end."""
    kills, seed, out, arguments = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
    sys.path.insert(0, ".")
    __import__("train")
    draw = random.Random(seed)
    log = Path(f"{out}.txt")
    in_a_save = done = 0
    while done < kills:
        before = newest(out)
        child = live(["--out", str(out), *arguments], log)
        over = False
        if done % 2:
            # Wait for a save, but not for the first one of a life: every life gets on.
            while not over and (newest(out) == before or not partial(out)):
                over = ended(child)
            time.sleep(draw.uniform(0.0, 0.02))
        else:
            end = time.monotonic() + draw.uniform(0.05, 1.5)
            while not over and newest(out) == before and time.monotonic() < end:
                over = ended(child)
                time.sleep(0.001)
            time.sleep(draw.uniform(0.0, 0.02))
        if over:
            break
        in_a_save += bool(partial(out))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        done += 1
    else:
        child = live(["--out", str(out), *arguments], log)
        _, status = os.waitpid(child, 0)
        assert status == 0, log.read_text()
    starts = [int(line.rsplit(" ", 1)[1]) for line in log.read_text().splitlines() if "from step" in line]
    print(json.dumps({"kills": done, "in_a_save": in_a_save, "starts": starts}))


def newest(out: Path) -> str:
    """Return the last checkpoint that is whole ("": none)."""
    return max((path.name for path in out.glob("step_*")), default="")


def partial(out: Path) -> list[Path]:
    """Return the checkpoints that are being written."""
    return list(out.glob(".step_*.partial"))


if __name__ == "__main__":
    main()
