# SPDX-License-Identifier: Apache-2.0
"""Ratios side by side, as a table and as JSON."""

from cases import Case
from client import Sample

Results = dict[str, Sample]


def best(results: Results, names: list[str]) -> Sample:
    """The faster peer's rate and the thriftier peer's CPU."""
    peers = [results[name] for name in names]
    return Sample(max(p.rate for p in peers), min(p.cpu for p in peers))


def ratio(ours: float, theirs: float) -> float:
    """ours / theirs; infinite when theirs is too small to be seen."""
    return ours / theirs if theirs else float("inf")


def verdict(case: Case, ours: Sample, peer: Sample, ceiling: Sample | None) -> str:
    """What is asked for, and whether it was reached."""
    if case.required is None:
        return ""
    text = f"asks {case.required:g}x"
    reached = ratio(ours.rate, peer.rate) >= case.required
    if case.ceiling and ceiling:
        text += f" or {case.ceiling:g} of the ceiling"
        reached = reached or ratio(ours.rate, ceiling.rate) >= case.ceiling
    if case.cpu:
        text += f", CPU {case.cpu:g}x"
        reached = reached and ratio(ours.cpu, peer.cpu) <= case.cpu
    return f"{text}: {'reached' if reached else 'NOT REACHED'}"


def lines(case: Case, results: Results, subject: str, ceiling: str | None) -> list[str]:
    """One case: every server's figures, then the subject's ratios."""
    out = [case.name]
    for name, sample in results.items():
        row = f"  {name:<12} {sample.rate:>10,.0f}/s  {sample.cpu:>8.2f} us CPU"
        if name != subject:
            ours = results[subject]
            row += f"   {subject} / {name}: {ratio(ours.rate, sample.rate):5.2f}x"
            row += f", CPU {ratio(ours.cpu, sample.cpu):5.2f}x" if name != ceiling else ""
        out.append(row)
    peers = [name for name in results if name not in (subject, ceiling)]
    if peers:
        ours, peer = results[subject], best(results, peers)
        out.append(
            f"  to the faster peer: {ratio(ours.rate, peer.rate):.2f}x,"
            f" CPU {ratio(ours.cpu, peer.cpu):.2f}x;"
            f" {verdict(case, ours, peer, results.get(ceiling) if ceiling else None)}"
        )
    return out


def as_data(case: Case, results: Results) -> dict[str, object]:
    """The same for machines."""
    return {
        "case": case.name,
        "servers": {n: {"rate": s.rate, "cpu_us": s.cpu} for n, s in results.items()},
    }
