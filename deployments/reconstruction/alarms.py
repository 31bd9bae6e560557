"""When scores above a threshold are an alarm. Knows no model."""

from collections.abc import Sequence
from dataclasses import dataclass

from deployments.messages import Alarm
from model_store.tabling import Alarms


@dataclass(frozen=True, slots=True)
class Watch:
    """What is to be known of the steps before: the first step of the open alarm (-1: none is), its peak, when one may begin."""

    began: int = -1
    peak: float = 0.0
    quiet_until: int = 0


def watch(
    scores: Sequence[float], start: int, threshold: float, policy: Alarms, before: Watch
) -> tuple[list[Alarm], Watch]:
    """Alarms that were open, or began, in these steps, the first of which is step `start`."""
    release = threshold - policy.hysteresis * abs(threshold)
    began, peak, quiet_until = before.began, before.peak, before.quiet_until
    alarms: list[Alarm] = []
    for step, score in enumerate(scores, start):
        if began >= 0:
            if score > release:
                peak = max(peak, score)
                continue
            alarms.append(Alarm(began, step - 1, peak, open=False))
            began, quiet_until = -1, step + policy.cooldown
        elif score > threshold and step >= quiet_until:
            began, peak = step, score
    if began >= 0:
        alarms.append(Alarm(began, start + len(scores) - 1, peak, open=True))
    return alarms, Watch(began, peak, quiet_until)
