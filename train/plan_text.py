"""A plan for people, and as JSON."""

from collections.abc import Mapping
from typing import Any

from .chips import GIB
from .plan import Plan, roofline


def text(plan: Plan) -> str:
    """Some lines for a terminal."""
    axes = " x ".join(f"{name} {size}" for name, size in plan.mesh.items() if size > 1)
    lines = [f"devices     {plan.devices} x {plan.kind}" + (f", {axes}" if axes else "")]
    lines.append(f"batch       {plan.batch} a device; compiled in {plan.compile_seconds:.1f} s")
    lines.append("memory      a device: " + _sizes(plan.memory))
    if plan.host:
        lines.append("            on the host, for each device: " + _sizes(plan.host))
    of = f" of {plan.available / GIB:.2f} GiB" if plan.available else ""
    lines.append(f"            {plan.needed / GIB:.2f} GiB{of}: " + ("fits" if plan.fits else "DOES NOT FIT"))
    if plan.cost is None:
        return "\n".join(lines)
    if not plan.donated:
        lines.append("            the new state is not written over the old one: both are in memory during a step")
    cost = plan.cost
    lines.append(
        f"work        a device: {cost.flops / 1e12:.3f} TFLOP, {cost.bytes_accessed / 1e9:.2f} GB accessed,"
        f" {cost.memory_bytes / 1e9:.2f} GB of it in its memory"
        + (f", {cost.host_bytes / 1e9:.2f} GB in the host's" if cost.host_bytes else "")
    )
    for kind, traffic in sorted(cost.collectives.items()):
        lines.append(
            f"messages    {kind}: {traffic.messages:,.0f} of {traffic.bytes / 1e6:,.1f} MB together,"
            f" {traffic.sent / 1e6:,.1f} MB sent by each device"
        )
    seconds = roofline(plan)
    if not seconds:
        lines.append(f"step        not estimated: the speed of {plan.kind!r} is not known")
        return "\n".join(lines)
    bound = max(seconds, key=lambda name: seconds[name])
    times = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in seconds.items())
    rate = plan.batch * plan.devices / plan.mesh["tensor"] / seconds[bound]
    lines.append(f"step        {times}")
    lines.append(
        f"            at least {1e3 * seconds[bound]:.2f} ms, bound by {bound}: at most {rate:,.0f} examples a second"
    )
    return "\n".join(lines)


def line(plan: Plan) -> str:
    """One line for a search."""
    of = f" of {plan.available / GIB:.2f}" if plan.available else ""
    verdict = "fits" if plan.fits else "does not fit"
    return f"  {plan.batch} a device: {plan.needed / GIB:.2f}{of} GiB, {verdict}; {plan.compile_seconds:.0f} s"


def as_json(plan: Plan) -> dict[str, Any]:
    """All fields in plain values, and the roofline's seconds."""
    cost = None
    if plan.cost is not None:
        messages = {kind: traffic._asdict() for kind, traffic in plan.cost.collectives.items()}
        cost = {**plan.cost._asdict(), "collectives": messages}
    chip = plan.chip and plan.chip._asdict()
    return {**plan._asdict(), "chip": chip, "cost": cost, "fits": plan.fits, "least_seconds": roofline(plan)}


def _sizes(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size / GIB:.3f}" for name, size in parts.items() if size) + " GiB"
