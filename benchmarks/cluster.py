"""Training across a Ray cluster of several nodes, one of which is lost on the way: what it costs, what it changes.

    python benchmarks/cluster.py [--steps 20] [--lose-at 8]

The nodes are processes of this machine (`ray.cluster_utils`): a head for the learner, two that get a worker each
(`placement: spread`) and a spare. The same small recipe is trained twice, undisturbed and with a worker's node killed
after step `--lose-at`. Prints seconds a step before, while and after the lost worker is replaced, the replacements and
their causes; the last line is `equal yes` where metrics and adapter are those of the undisturbed run, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from underdog.rl.api import train

EVEN = """
def even(group):
    return [sum(c in "02468" for c in s.text) / max(len(s.text), 1) for s in group.samples]
"""
RECIPE = """
model: shape:tiny-reasoner
data: {{name: arithmetic, count: 256, held_out: 8}}
rollouts:
  {{workers: 2, resources: {{cpus: 1, gpus: 0, placement: spread}}, problems: 8, group: 8, max_tokens: 48}}
rewards: {{"{reward}:even": 1}}
learner: {{lr: 1e-3, adapter: {{name: lora, r: 8, alpha: 16}}}}
eval: {{problems: 0}}
"""


class Replacements(logging.Handler):
    """Keeps what the workers' log says."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.said.append(record.getMessage())


def start_nodes() -> Cluster:
    """A head that has room for no worker, and three nodes that have room for one each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 2**28})
    for _ in range(3):
        cluster.add_node(num_cpus=1, object_store_memory=2**28)
    cluster.wait_for_nodes()
    return cluster


def lose_node(cluster: Cluster, out: Path, step: int) -> None:
    """Once `out` has that many steps, kill the node of the second worker, and all that runs there with it."""
    while len(metrics_of(out)) < step:
        time.sleep(0.02)
    groups: Any = placement_group_table()
    (placed,) = (group for group in groups.values() if group["state"] == "CREATED")
    lost = next(node for node in cluster.list_all_nodes() if node.node_id == placed["bundles_to_node_id"][1])
    cluster.remove_node(lost, allow_graceful=False)


def metrics_of(out: Path) -> list[dict[str, float]]:
    """The run's metrics so far."""
    path = out / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def results_of(out: Path) -> tuple[list[dict[str, float]], list[bytes]]:
    """What no fault may change: metrics but for time, memory and faults, and the adapter's bytes."""
    apart = ("time/", "memory/", "faults/")
    metrics = [{k: v for k, v in row.items() if not k.startswith(apart)} for row in metrics_of(out)]
    newest = max((out / "adapters").glob("v*"), key=lambda path: int(path.name[1:]))
    return metrics, [path.read_bytes() for path in sorted(newest.iterdir())]


def show(out: Path, lost_at: int) -> None:
    """Seconds a step: the median before, the longest (with the replacement in it), the median after."""
    seconds = [row["time/step"] for row in metrics_of(out)]
    worst = max(range(lost_at, len(seconds)), key=lambda i: seconds[i])
    print(f"seconds a step before        {statistics.median(seconds[1:lost_at]):.2f} (median)")
    print(f"seconds of step {worst + 1:<12} {seconds[worst]:.2f} (its worker was replaced)")
    print(f"seconds a step after         {statistics.median(seconds[worst + 1 :]):.2f} (median)")


def compare(place: Path, steps: int, lose_at: int) -> None:
    """Train twice in `place`, lose a node in the second run, compare."""
    log = Replacements()
    logging.getLogger("underdog.rollouts.workers").addHandler(log)
    (place / "even.py").write_text(EVEN)
    (place / "recipe.yaml").write_text(RECIPE.format(reward=place / "even.py"))
    cluster = start_nodes()
    os.environ["RAY_ADDRESS"] = str(cluster.address)
    try:
        train(place / "recipe.yaml", out=str(place / "calm"), steps=steps)
        out = place / "disturbed"
        losing = threading.Thread(target=lose_node, args=(cluster, out, lose_at), daemon=True)
        losing.start()
        train(place / "recipe.yaml", out=str(out), steps=steps)
        losing.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    show(out, lose_at)
    print(f"replacements                 {len(log.said)}")
    for line in log.said:
        print(f"  {line}")
    print(f"equal {'yes' if results_of(place / 'calm') == results_of(out) else 'no'}")


def main() -> None:
    """Read the options and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--lose-at", type=int, default=8)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="underdog-cluster-") as place:
        compare(Path(place), asked.steps, asked.lose_at)


if __name__ == "__main__":
    main()
