"""A small training run under mpiexec, for fault-injection tests: mpiexec -n 2 python small_ranks.py RUN_DIR [JSON].

settings: scheme, device, epochs, images, timeout, save_every, quiet; die, hang: [rank, steps] after which a rank kills
itself or sleeps; other_seed: a rank with different initial weights. Once a rank trains it prints its PID, so that tests
can kill it.
"""

import json
import os
import signal
import sys
import time

from minicnn.backend.cpu import set_threads
from minicnn.errors import MinicnnError
from minicnn.parallel.launch import launch
from minicnn.parallel.parallel_net import SCHEMES
from tests.helpers.small_run import small_net, small_trainer


def train(comm, run_dir: str, settings: dict):
    seed = 2 if comm.rank == settings.get("other_seed") else 1
    net = SCHEMES[settings.get("scheme", "columns")](small_net(settings.get("device", "reference"), seed), comm)
    say = None if settings.get("quiet") else print
    trainer = small_trainer(run_dir, images=settings.get("images", 96), net=net, say=say,
                            save_every=settings.get("save_every", 0))
    if trainer.last_path.exists():
        trainer.resume()
    backward = net.backward

    def disturbed(**options):
        backward(**options)
        here = [comm.rank, trainer.epoch * len(trainer.loader) + trainer.step]
        if here == settings.get("die"):
            print(f"rank {comm.rank} dies at {time.time()}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if here == settings.get("hang"):
            time.sleep(600)
    net.backward = disturbed
    if not settings.get("quiet"):
        print(f"rank {comm.rank} trains in process {os.getpid()}", flush=True)
    return trainer.fit(settings.get("epochs", 2)).interrupted


def main() -> int:
    settings = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    set_threads(1)
    try:
        interrupted = launch(None, lambda local_size: None, lambda comm, _: train(comm, sys.argv[1], settings),
                             settings.get("timeout", 300.0))
    except MinicnnError as error:                           # with threads; under mpiexec it is already printed
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 130 if interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
