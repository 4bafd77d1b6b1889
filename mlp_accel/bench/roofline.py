"""How far each backend is from what the device can do, by each of its paths: see `mlp_accel.bench.engines.op_times`."""

from __future__ import annotations

from collections.abc import Sequence

from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.engine import CALL_TIMEOUT, EngineError
from mlp_accel.bench.results import Roofline, Run
from mlp_accel.bench.runs import Listener, Measurement, attempt, start


def run_roofline(
    runs: Sequence[Run], config: Config, listen: Listener = lambda _: None, timeout: float = CALL_TIMEOUT
) -> tuple[Roofline, ...]:
    """The roofline of every backend and path in `runs` whose training was right.

    It has a whole step, and for the loop also the ops that its step is made of.
    """
    found = []
    for run in runs:
        if run.status != "ok" or run.kind != "backend":
            continue
        measurement = Measurement.of(run.name, run.path)
        try:
            attempt(measurement, listen, lambda measurement: start(measurement, config, timeout, listen))
            if measurement.engine is not None:
                found.append(Roofline.from_dict({"name": run.name, "path": run.path, **measurement.engine.call("roofline")}))
        except EngineError as error:
            listen(f"{measurement.label}: no roofline: {error}")
        finally:
            measurement.close()
    return tuple(found)
