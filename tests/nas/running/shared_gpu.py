"""Four workers of one GPU, as Ray is told: one runs out of memory. Prints what a driver hears.

The GPU is a number that Ray counts; the workers do what the test says.
"""

import json
import sys
import time

import ray

import workers.actor
from nas.running.gpu_sharing import measured, probe
from nas.running.ray_limits import Limits
from nas.running.ray_workers import Workers
from search_space.backbone import Backbone
from search_space.contract import EvalRequest, EvalResult, Recipe, Status
from search_space.spec import FFNSpec


class Stand(workers.actor.TrialActor):
    """Trial 0 has too little memory where it has less than half of the GPU; the others end after
    it, each in its own time."""

    def __init__(self):
        pass

    def run(self, request, share=1.0):
        time.sleep(0.3 + request.number)
        short = request.number == 0 and share < 0.5
        status = Status.OUT_OF_MEMORY if short else Status.FINISHED
        yield EvalResult(evaluation=request.evaluation, status=status, error="full", seconds=share)


def tell(probe):
    yield None
    if probe.recipe.batch_size == 1:
        yield {"error": "it broke", "kind": "failed"}
    else:
        yield {"trials": 4, "words": "4 trials share a GPU"}


def main(folder):
    workers.actor.TrialActor, workers.actor.share_stream = Stand, tell
    ray.init(
        address="local", num_cpus=4, num_gpus=1, include_dashboard=False, _temp_dir=folder,
        _node_ip_address="127.0.0.1", object_store_memory=100 * 2**20, log_to_driver=False,
    )  # fmt: skip
    beats = []
    found = measured(probe(Backbone(), Recipe(), 1e12, "auto"), Limits(), lambda: beats.append(1))
    broken = measured(probe(Backbone(), Recipe(batch_size=1), 1e12, "cuda"), Limits(), print)
    print(json.dumps({"shares": found, "broken": broken, "beats": len(beats)}))
    pool = Workers(4, 1, found.gpus, local=True, limits=Limits())

    def submit(number):
        pool.submit(
            EvalRequest(
                evaluation=number, number=number, spec=FFNSpec(d_ff=8), backbone=Backbone(),
                recipe=Recipe(), corpus_dir="", until_flops=1e12,
            )
        )  # fmt: skip

    for number in range(4):
        submit(number)
    waiting, ended = {0, 1, 2, 3}, []
    again = False
    while waiting:
        for event in pool.events(1.0):
            ended.append([event.evaluation, event.status, event.error, pool.slots()])
            waiting.discard(event.evaluation)
            if event.evaluation == 0 and event.status is Status.OUT_OF_MEMORY:
                waiting.add(0)
                again = True
        if again and len(pool._running) < pool.slots():
            submit(0)
            again = False
    print(json.dumps({"ended": ended, "left": len(pool._workers)}))


if __name__ == "__main__":
    main(sys.argv[1])
