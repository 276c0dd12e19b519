"""A tenth of benchmarks/soak.py: random requests, resets and cancellations."""

import importlib.util
from pathlib import Path

from loops import in_loops


def load(path):
    """Import a script by its path: others there have names of PyPI's modules."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


soak = load(Path(__file__).parents[1] / "benchmarks" / "soak.py")


@in_loops
async def test_random_requests_keep_every_byte_and_leave_nothing():
    run = soak.Soak(soak.REQUESTS // 10, seed=4)
    await run.run()
    outcomes = run.outcomes
    assert outcomes["whole"] > run.requests // 2
    # Each is some five in a hundred; what else happens is rarer than this run is long.
    for end in ("reset", "cancelled", "answers cancelled"):
        assert outcomes[end], outcomes
