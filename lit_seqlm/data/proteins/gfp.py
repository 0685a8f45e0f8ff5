"""Brightness of the variants of a green fluorescent protein."""

# N = genotypes

import re

import numpy as np

from lit_seqlm.data.label_rows import LabelRows, read_label_rows
from lit_seqlm.data.proteins.property_source import MEASURES, Proteins
from lit_seqlm.data.proteins.published import PublishedFiles
from lit_seqlm.data.proteins.reading import Reading
from lit_seqlm.data.targets import Target
from lit_seqlm.errors import UserError

FILE = "amino_acid_genotypes_to_brightness.tsv"
# UniProt P42212 without its first Met, and with Leu for Phe 64. Every mutation of the file names the residue that it
# replaces, which proves 233 of the 237; S2, L119, V120 and K238 are never mutated, and are as UniProt has them.
WILD_TYPE = (
    "SKGEELFTGVVPILVELDGDVNGHKFSVSGEGEGDATYGKLTLKFICTTGKLPVPWPTLVTTLSYGVQCFSRYPDHMKQHDFFKSAMPEGYVQERTIFFKDDGN"
    "YKTRAEVKFEGDTLVNRIELKGIDFKEDGNILGHKLEYNYNSHNVYIMADKQKNGIKVNFKIRHNIEDGSVQLADHYQQNTPIGDGPVLLPDNHYLSTQSALSK"
    "DPNEKRDHMVLLEFVTAAGITHGMDELYK"
)
MUTATION = re.compile(r"S([A-Z])(\d+)([A-Z*])")  # S: a substitution; positions from 0
MOST_TRAINED = 3  # mutations
BRIGHT = 2.0  # log10 brightness above which a variant shines
BRIGHTNESS = Target(
    name="log_fluorescence",
    column="medianBrightness",
    unit="log10",
    chemists_unit="log10",
    chemists_factor=1.0,
    extensive=False,
    repeats="",
    measures=(*MEASURES, "spearman_above", "spearman_below"),
    cut=BRIGHT,
)


class Gfp(Proteins):
    """54,025 genotypes of avGFP with the median of their log brightness (Sarkisyan et al. 2016).

    TAPE's test has those of more than three mutations, 27,217, and so has this one, row for row. Of the other
    26,808 it gives a fifth to validation; which ones is not published, so the draw is ours. 2,310 genotypes have a
    mutation to a stop codon, of which TAPE's paper says nothing. ``stop=x`` keeps all sequences distinct; cut at
    their stops, 243 rows of the test would equal one of training.

    Args:
        data_dir: below it is the folder of the file.
        valid_fraction: of the genotypes of at most three mutations.
        split_seed: of their draw.
        stop, illegal: see `Reading`.
        features: see `Proteins`.
    """

    covariates = ("num_mutations",)

    def __init__(
        self,
        data_dir: str,
        valid_fraction: float,
        split_seed: int,
        stop: str,
        illegal: str,
        features: str,
    ):
        if not 0 < valid_fraction < 1:
            raise UserError(f"data.source.valid_fraction={valid_fraction}: between 0 and 1.")
        reading = Reading(stop, illegal)
        super().__init__(
            "gfp", "regression", [BRIGHTNESS], "column", None, split_seed, reading, features
        )
        self.files = PublishedFiles("fluorescence", self.name, data_dir)
        self.valid_fraction = valid_fraction

    def digest(self) -> str:
        return self.files.digest()

    def fetch(self) -> None:
        self.files.fetch()

    def read(self) -> LabelRows:
        """Genotypes as sequences, a stop as ``*``."""
        self.fetch()
        columns = [target.column for target in self.targets]
        rows = read_label_rows(self.files[FILE], "aaMutations", columns, None, self.kind)
        counts_N = np.array([_num_mutations(genotype) for genotype in rows.sequences])
        rows.marks = self._marks(counts_N)
        rows.sequences = [
            mutated(genotype, f"{self.files[FILE]}, row {number}")
            for genotype, number in zip(rows.sequences, rows.numbers_N, strict=True)
        ]
        return rows

    def covariates_of(self, sequences: list[str]) -> np.ndarray:
        """Differences from the wild type, float64 (N, 1): a stop is one, read as X or cut there."""
        counts = [
            sum(map(str.__ne__, sequence, WILD_TYPE)) + (len(sequence) < len(WILD_TYPE))
            for sequence in sequences
        ]
        return np.array(counts, np.float64)[:, None]

    def _marks(self, counts_N: np.ndarray) -> list[str]:
        marks_N = np.where(counts_N > MOST_TRAINED, "test", "train").astype(object)
        few = np.flatnonzero(counts_N <= MOST_TRAINED)
        order = np.random.default_rng(self.split_seed).permutation(len(few))
        marks_N[few[order[: round(self.valid_fraction * len(few))]]] = "valid"
        return marks_N.tolist()


def mutated(genotype: str, where: str) -> str:
    """The sequence of ``wt``, or of mutations such as ``SA108D:SN144D``.

    Raises:
        UserError: for a mutation that is none, or of a residue that does not stand there.
    """
    letters = list(WILD_TYPE)
    for mutation in genotype.split(":") if genotype != "wt" else []:
        found = MUTATION.fullmatch(mutation)
        if found is None:
            raise UserError(f"{where}: {mutation!r} is no substitution such as SA108D.")
        old, place, new = found[1], int(found[2]), found[3]
        if place >= len(WILD_TYPE) or WILD_TYPE[place] != old:
            there = WILD_TYPE[place] if place < len(WILD_TYPE) else "nothing"
            raise UserError(f"{where}: {mutation!r}, but {there} stands at {place} (from 0).")
        letters[place] = new
    return "".join(letters)


def _num_mutations(genotype: str) -> int:
    return 0 if genotype == "wt" else genotype.count(":") + 1
