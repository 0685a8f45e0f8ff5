"""What is predicted of a sequence: its name, its unit, and what may be averaged with what."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lit_seqlm.errors import UserError


@dataclass(frozen=True)
class Target:
    """One measured or computed property.

    Attributes:
        name: as it is asked for and as metrics are named: ``gap``.
        column: of the file.
        unit: of the file's numbers; empty for a class or where it is not known.
        chemists_unit: what the field reads it in; the same as `unit` where nothing else is usual.
        chemists_factor: a difference in `unit` times this is one in `chemists_unit`.
        extensive: grows with the size of the sequence, so that it is learnt as what remains after
            least squares on the covariates (`lit_seqlm.data.residual`).
        repeats: another target with the same numbers; such a one is not among the usual targets.
        measures: what its field reads, the first in tables: ``mae``, or ``spearman``, ``mse``.
        cut: labels above and below it are scored apart as well, such as bright and dark variants of
            a protein; null: they are not.
    """

    name: str
    column: str
    unit: str
    chemists_unit: str
    chemists_factor: float
    extensive: bool
    repeats: str
    measures: tuple[str, ...] = ("mae",)
    cut: float | None = None


def plain_target(name: str, column: str, unit: str) -> Target:
    """An intensive target that is reported in the unit of its file."""
    return Target(name, column, unit, unit, 1.0, False, "")


def choose(targets: Sequence[Target], wanted: str | Sequence[str], where: str) -> list[int]:
    """Columns of the targets that ``data.target`` asks for.

    Args:
        wanted: ``all``, one name, or several.
        where: begins the message: ``data=qm9``.

    Raises:
        UserError: for a name that is none of the targets, one given twice, or no name at all.
    """
    if wanted == "all":
        return list(range(len(targets)))
    asked = [wanted] if isinstance(wanted, str) else list(wanted)
    names = [target.name for target in targets]
    if not asked:
        raise UserError(f"{where}: data.target is an empty list. Try data.target=all.")
    for name in asked:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1) or names
            raise UserError(
                f"{where} has no target {name!r}. Targets: {', '.join(names)}. "
                f"Try data.target={near[0]}."
            )
        if asked.count(name) > 1:
            raise UserError(f"{where}: data.target has {name!r} twice. Say it once.")
    return [names.index(name) for name in asked]


def average(values: Mapping[str, float], targets: Sequence[Target]) -> float:
    """Mean of one number for each target, such as an error, which must all be in one unit.

    Args:
        values: by target name, in the targets' own units.

    Raises:
        UserError: if the units differ: such a mean is of nothing.
    """
    units = {target.name: target.unit for target in targets if target.name in values}
    if len(set(units.values())) > 1:
        listed = ", ".join(f"{name} in {unit or 'no unit'}" for name, unit in units.items())
        raise UserError(
            f"a mean over different units means nothing: {listed}. Average errors divided by each "
            "target's standard deviation instead; the paper's own mean is avg_mae_paper."
        )
    return sum(values.values()) / len(values)


def avg_mae_paper(values: Mapping[str, float]) -> float:
    """MoLFormer's ``Avg MAE``: the plain mean over measures in different units.

    Only for the table that prints it (Ross et al. 2022, QM9): some 90 % of it is the error of r2 in
    a0^2, so it says little of the other measures.
    """
    return sum(values.values()) / len(values)
