"""Pack the tables of deseq2_tables.R into deseq2_prior_variance.npz, and check them against R.

``python data/reference/deseq2_tables.py`` (R with DESeq2 in the path; half a minute). It fails if the curves or the
prior variances that the tables give are not those of R.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from epigen_utils.deseq import trends

HERE = Path(__file__).parent
PACKED = HERE / "deseq2_prior_variance.npz"
#: Residual degrees of freedom that are tabulated.
DEGREES = (1, 2, 3)


def read(folder: Path, name: str) -> np.ndarray:
    """A table that R wrote."""
    return np.genfromtxt(folder / f"{name}.csv.gz", delimiter=",")


def hermite(vertices: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cubic Hermite interpolation as weights of values and slopes.

    Returns
    -------
    The lower vertex of each point's cell (points,), and the weights (points x 4) of the value at the lower and the
    upper vertex, and of the slope at the lower and the upper vertex.
    """
    cell = np.clip(np.searchsorted(vertices, points, side="right") - 1, 0, len(vertices) - 2)
    width = vertices[cell + 1] - vertices[cell]
    t = (points - vertices[cell]) / width
    weights = [(1 + 2 * t) * (1 - t) ** 2, t**2 * (3 - 2 * t), width * t * (1 - t) ** 2, width * t**2 * (t - 1)]
    return cell, np.stack(weights, axis=1)


def check(tables: dict[str, np.ndarray], folder: Path) -> None:
    """Compare with R's own curves and prior variances.

    Raises
    ------
    SystemExit
        If they are not equal: curves within 1e-12, variances within 1e-9.
    """
    random, smoothed = read(folder, "random"), read(folder, "smoothed")
    worst = max(np.abs(trends.smooth(random[:, i], tables) - smoothed[:, i]).max() for i in range(random.shape[1]))
    print(f"loess: {random.shape[1]} curves, worst difference {worst:.1e}")
    differences = []
    for path in sorted(folder.glob("black_box_*_variance.csv.gz")):
        name = path.name.removesuffix("_variance.csv.gz")
        ours = trends.prior_variance(*read(folder, name).T, int(name.split("_")[2]), tables)
        theirs = float(read(folder, f"{name}_variance"))
        differences.append(abs(ours - theirs))
        print(f"{name}: ours {ours:.6f}, estimateDispersionsPriorVar {theirs:.6f}")
    if not (worst < 1e-12 and max(differences) < 1e-9):
        sys.exit("deseq2_tables: the tables do not give R's numbers")


def main() -> None:
    """Run R, pack, check."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["Rscript", HERE / "deseq2_tables.R", folder], check=True)
        vertices = read(folder, "vertices")
        cell, weights = hermite(vertices, trends.FINE)
        tables = {"counts": np.stack([read(folder, f"counts_{df}") for df in DEGREES]).astype(np.uint16)}
        tables |= {"values": read(folder, "values"), "slopes": read(folder, "slopes")}
        tables |= {"cell": cell.astype(np.uint8), "weights": weights}
        check(tables, folder)
    np.savez_compressed(PACKED, **tables)
    print(f"{PACKED.name}: {PACKED.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
