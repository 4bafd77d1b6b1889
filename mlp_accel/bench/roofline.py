"""How far the ops of each backend are from what the device can do: see `mlp_accel.bench.engines.op_times`."""

from __future__ import annotations

from collections.abc import Sequence

from mlp_accel.backends.paths import LOOP
from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.engine import CALL_TIMEOUT, EngineError
from mlp_accel.bench.results import Roofline, Run
from mlp_accel.bench.runs import Listener, Measurement, attempt, start


def run_roofline(
    runs: Sequence[Run], config: Config, listen: Listener = lambda _: None, timeout: float = CALL_TIMEOUT
) -> tuple[Roofline, ...]:
    """The roofline of every backend in `runs` whose training was right.

    It is the loop that is made of these ops, whatever other paths were measured.
    """
    found = []
    for name in dict.fromkeys(run.name for run in runs if run.status == "ok" and run.kind == "backend"):
        measurement = Measurement.of(name, LOOP)
        try:
            attempt(measurement, listen, lambda measurement: start(measurement, config, timeout, listen))
            if measurement.engine is not None:
                found.append(Roofline.from_dict({"name": name, "path": LOOP, **measurement.engine.call("roofline")}))
        except EngineError as error:
            listen(f"{measurement.label}: no roofline: {error}")
        finally:
            measurement.close()
    return tuple(found)
