"""Similarity of attention and distance against loops; tokens and coordinates against RDKit's own atoms."""

# L = layers, H = heads, T = tokens, P = points, C = classes, A = atoms

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rdkit import Chem, RDConfig
from rdkit.Chem import rdDistGeom

from lit_seqlm.data.chemistry import conformers
from lit_seqlm.data.chemistry.canonical import canonicalize, parse
from lit_seqlm.data.chemistry.token_atoms import atom_attention, atom_places
from lit_seqlm.errors import UserError
from lit_seqlm.metrics import attention_distance as measure
from lit_seqlm.metrics.attention_distance import DistanceClass
from lit_seqlm.metrics.bootstrap import Interval
from lit_seqlm.plots.attention import similarity_by_layer, strongest_pairs, top_pairs
from lit_seqlm.tokenizer.smiles import SmilesTokenizer
from lit_seqlm.tokenizer.smiles_cut import find

CLASSES = (DistanceClass("near", 0, 1.5), DistanceClass("far", 1.5, 4))
SHIPPED = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"


def by_loop(maps_LHTT: np.ndarray, places: list[int], positions: np.ndarray) -> np.ndarray:
    """Cosines (L, C), one pair of atoms at a time."""
    found = np.zeros((len(maps_LHTT), len(CLASSES)))
    for layer, maps_HTT in enumerate(maps_LHTT):
        for c, (_, above, most) in enumerate(CLASSES):
            dot = square = count = 0.0
            for i, m in enumerate(places):
                for j, n in enumerate(places):
                    if i == j:
                        continue
                    weight = sum((of[m, n] + of[n, m]) / 2 for of in maps_HTT) / len(maps_HTT)
                    inside = above < math.dist(positions[i], positions[j]) <= most
                    dot, square, count = dot + weight * inside, square + weight**2, count + inside
            found[layer, c] = dot / math.sqrt(square * count)
    return found


def test_similarity_is_what_a_loop_over_pairs_gives() -> None:
    rng = np.random.default_rng(0)
    maps_LHTT = rng.dirichlet(np.ones(9), size=(3, 2, 9))
    places, positions = [1, 2, 4, 6, 7], rng.normal(0, 1, (5, 3))
    targets = measure.classes_of(measure.distances(positions), CLASSES)
    maps_LPP = measure.point_maps(maps_LHTT, np.array(places))
    assert targets.any((1, 2)).all()
    np.testing.assert_allclose(
        measure.cosines(maps_LPP, targets), by_loop(maps_LHTT, places, positions), rtol=1e-12
    )


def test_attention_alike_on_all_pairs_gives_the_root_of_a_class_share() -> None:
    positions = np.random.default_rng(1).normal(0, 1, (7, 3))
    targets = measure.classes_of(measure.distances(positions), CLASSES)
    shares = targets.sum((1, 2)) / (7 * 6)
    np.testing.assert_allclose(measure.cosines(measure.uniform(7), targets)[0], np.sqrt(shares))


def test_attention_to_a_class_alone_has_similarity_one_and_a_class_without_pairs_none() -> None:
    distances_PP = measure.distances(np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]))
    targets = measure.classes_of(distances_PP, (*CLASSES, DistanceClass("none", 4, 10)))
    near, far, none = measure.cosines(targets[:1].astype(float), targets)[0]
    assert (near, far) == (pytest.approx(1), 0)
    assert np.isnan(none)


def test_a_class_takes_its_upper_bound_and_not_its_lower() -> None:
    distances_PP = measure.distances(np.array([[0.0, 0, 0], [1.5, 0, 0], [5.5, 0, 0]]))
    near, far = measure.classes_of(distances_PP, CLASSES)
    assert near[0, 1]
    assert not far[0, 1]
    assert far[1, 2]
    assert not (near | far)[0, 2]
    assert not (near | far).diagonal().any()


def test_permuted_maps_keep_their_weights_and_lose_their_places() -> None:
    rng = np.random.default_rng(2)
    maps_LPP = measure.point_maps(rng.random((2, 1, 8, 8)), np.arange(8))
    other = measure.permuted(maps_LPP, rng)
    np.testing.assert_array_equal(np.sort(other.ravel()), np.sort(maps_LPP.ravel()))
    np.testing.assert_array_equal(other, other.transpose(0, 2, 1))
    assert not other.diagonal(axis1=1, axis2=2).any()
    assert not np.array_equal(other, maps_LPP)


def test_what_stands_beside_has_as_many_layers() -> None:
    rng = np.random.default_rng(3)
    maps_LPP = measure.point_maps(rng.random((4, 2, 6, 6)), np.arange(6))
    chain = np.abs(np.subtract.outer(np.arange(6), np.arange(6))) == 1
    found = measure.beside(maps_LPP, chain[None], rng)
    assert {kind: values.shape for kind, values in found.items()} == dict.fromkeys(
        (measure.OWN, measure.PERMUTED, measure.ALIKE, measure.NEIGHBOURS), (4, 1)
    )
    np.testing.assert_allclose(found[measure.NEIGHBOURS], 1)
    np.testing.assert_array_equal(found[measure.OWN], measure.cosines(maps_LPP, chain[None]))


def test_an_interval_leaves_molecules_without_such_a_pair_out() -> None:
    values = np.random.default_rng(4).normal(0.5, 0.1, 400)
    found = measure.mean_interval(np.concatenate([values, [np.nan] * 50]), 4000, 0)
    error = values.std() / math.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert np.isnan(measure.mean_interval(np.array([np.nan]), 10, 0).mean)


@pytest.mark.parametrize(
    ("smiles", "atoms"),
    [
        ("C[C@@H](Br)O", ["C", "[C@@H]", "Br", "O"]),
        ("Clc1ccc(cc1)[N+](=O)[O-]", ["Cl", *"cccccc", "[N+]", "O", "[O-]"]),
        ("C%12CC%12=C\\F", ["C", "C", "C", "C", "F"]),
        ("c1cc[se]c1.[Na+].[Cl-]", ["c", "c", "c", "[se]", "c", "[Na+]", "[Cl-]"]),
        ("[2H]OC", ["[2H]", "O", "C"]),
        ("[H]OC([H])C", ["O", "C", "C"]),
        ("*CB", ["*", "C", "B"]),
    ],
)
def test_tokens_of_atoms_are_rdkits_atoms_in_their_order(smiles: str, atoms: list[str]) -> None:
    tokens = find(smiles)
    places = atom_places(tokens, smiles)
    assert [tokens[place] for place in places] == atoms
    molecule, _ = parse(smiles)
    assert molecule is not None
    for token, atom in zip(atoms, molecule.GetAtoms(), strict=True):
        alone = Chem.MolFromSmarts(token).GetAtomWithIdx(0)
        assert alone.GetAtomicNum() in (atom.GetAtomicNum(), 0)


def test_tokens_of_many_molecules_follow_the_atom_maps_that_rdkit_writes() -> None:
    """RDKit writes each atom's number into the string; the bracket at an atom's place must hold it."""
    strings = [line.split()[0] for line in SHIPPED.read_text().splitlines()[:300]]
    for smiles in filter(None, (canonicalize(one, False).smiles for one in strings)):
        molecule, _ = parse(smiles)
        assert molecule is not None
        symbols = [atom.GetSymbol() for atom in molecule.GetAtoms()]
        for atom in molecule.GetAtoms():
            atom.SetAtomMapNum(atom.GetIdx() + 1)
        numbered = find(Chem.MolToSmiles(molecule, canonical=False))
        plain = find(smiles)
        written = [token for token in numbered if token.startswith("[")]  # in the order of indices
        places = atom_places(plain, smiles)
        assert len(places) == len(symbols)
        for index, (place, token) in enumerate(zip(places, written, strict=True)):
            assert token.endswith(f":{index + 1}]")
            assert symbols[index].lower() in plain[place].lower()


def test_tokens_cut_short_and_strings_that_are_no_molecule_are_refused() -> None:
    with pytest.raises(UserError, match="cut short"):
        atom_places(find("CCO")[:2], "CCO")
    with pytest.raises(UserError, match="no molecule"):
        atom_places(find("C(C"), "C(C")


class Looking:
    """A trunk whose every token looks at token 1 in layer 0 and at itself in layer 1."""

    def attention_maps(
        self, tokens_BT: torch.Tensor, valid_BT: torch.Tensor | None
    ) -> torch.Tensor:
        num_rows, length = tokens_BT.shape
        first_TT = torch.nn.functional.one_hot(torch.ones(length, dtype=torch.long), length)
        maps_LTT = torch.stack([first_TT, torch.eye(length)]).float()
        return maps_LTT[:, None, None].expand(2, num_rows, 3, length, length)


def tokenizer() -> SmilesTokenizer:
    made = SmilesTokenizer(None, "error", False, 1)
    made.fit(made.count(["CC(=O)Oc1ccccc1N", "[Na+].Cl"]))
    return made


def test_maps_of_a_padded_batch_come_by_molecule() -> None:
    smiles = ["CC(=O)Oc1ccccc1", "C", "CO", "CC(C)N"]
    found = {
        row: (maps, places) for row, maps, places in atom_attention(Looking(), tokenizer(), smiles)
    }
    assert sorted(found) == [0, 1, 2, 3]
    for row, one in enumerate(smiles):
        maps_LHTT, places = found[row]
        assert maps_LHTT.shape == (2, 3, len(find(one)) + 2, len(find(one)) + 2)
        assert [["", *find(one)][place] for place in places] == [
            t for t in find(one) if t.isalpha()
        ]
        assert (maps_LHTT[0, :, places, 1] == 1).all()


def mixed_up(smiles: str, order: list[int]) -> tuple[Chem.Mol, list[str], np.ndarray, np.ndarray]:
    """A molecule, and all its atoms by RDKit's conformer with the heavy ones in another order."""
    molecule, _ = parse(smiles)
    assert molecule is not None
    whole = Chem.AddHs(molecule)
    assert rdDistGeom.EmbedMolecule(whole, randomSeed=1) == 0
    every = [*order, *range(len(order), whole.GetNumAtoms())]
    elements = [whole.GetAtomWithIdx(atom).GetSymbol() for atom in every]
    positions = whole.GetConformer().GetPositions()
    return molecule, elements, positions[every], positions[: len(order)]


def test_atoms_in_another_order_are_matched_by_their_bonds() -> None:
    molecule, elements, positions, own = mixed_up("CC(O)C#N", [4, 2, 0, 3, 1])
    atoms, outcome = conformers.align(molecule, elements, positions)
    assert outcome == conformers.MATCHED
    assert atoms is not None
    np.testing.assert_array_equal(positions[atoms], own)


def test_hydrogen_tells_alike_carbons_apart() -> None:
    molecule, elements, positions, own = mixed_up("C=CCO", [2, 1, 0, 3])
    in_order = "OCC=C"  # the same graph of bonds, read from its other end
    atoms, _ = conformers.align(molecule, elements, positions)
    assert atoms is not None
    np.testing.assert_array_equal(positions[atoms], own)
    other, _ = parse(in_order)
    assert other is not None
    back, _ = conformers.align(other, elements, positions)
    assert back is not None
    np.testing.assert_array_equal(positions[back], own[::-1])


def test_another_molecule_is_not_aligned() -> None:
    _, elements, positions, _ = mixed_up("CC(O)C#N", [0, 1, 2, 3, 4])
    for other in ("CC(N)C#N", "COCC#N", "CC(O)C"):
        molecule, _ = parse(other)
        assert molecule is not None
        assert conformers.align(molecule, elements, positions) == (None, conformers.UNLIKE)


def test_a_conformer_stands_in_the_order_of_its_canonical_string() -> None:
    found, outcomes = conformers.embedded_conformers(
        ["OC(C)CN", "no molecule", "c1ccccc1Cl", "[Na+].[Cl-]"], 1, False
    )
    assert [one.smiles for one in found] == ["CC(O)CN", "Clc1ccccc1"]
    assert outcomes[conformers.UNREAD] == outcomes[conformers.IN_PIECES] == 1
    assert outcomes.total() == 4
    for one in found:
        molecule, _ = parse(one.smiles)
        assert molecule is not None
        bonded = {
            tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in molecule.GetBonds()
        }
        distances = measure.distances(one.positions_A3)
        for i in range(len(distances)):
            for j in range(i):
                assert one.bonds_AA[i, j] == ((j, i) in bonded)
                assert (distances[i, j] < 1.9) == ((j, i) in bonded)


def packed(folder: Path, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    """A package of the same shape, with water, carbon monoxide's stand-in methanol, and a wrong row."""
    rows = [
        "3,\"O\",\"['O','H','H']\",\"[[0.,0.,0.],[0.96,0.,0.],[-0.24,0.93,1.2E-6]]\"",
        "4,\"CO\",\"['O','C','H','H','H','H']\",\"[[1.4,0.,0.],[0.,0.,0.],[1.7,0.9,0.],"
        '[-0.36,1.03,0.],[-0.36,-0.51,0.89],[-0.36,-0.51,-0.89]]"',
        '5,"CO","[\'C\',\'N\']","[[0.,0.,0.],[1.2,0.,0.]]"',
    ]
    data = folder / "qm9pack" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise RuntimeError('it must not be imported')\n")
    for part, row in enumerate(rows, start=1):
        (data / f"qm9_part{part}.csv").write_text(f"{columns}\n{row}\n")
    monkeypatch.syspath_prepend(str(folder))


def test_the_package_is_read_and_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(tmp_path, monkeypatch, "Index,SMILES,Elements,XYZ_Ang")
    found, outcomes = conformers.packed_conformers(3, 0, False, first=[4])
    assert found[0].name == "gdb_4"
    assert found[0].positions_A3.tolist() == [[0, 0, 0], [1.4, 0, 0]]  # C before O
    assert {one.name for one in found} == {"gdb_3", "gdb_4"}
    assert outcomes == {conformers.IN_ORDER: 1, conformers.MATCHED: 1, conformers.UNLIKE: 1}


def test_a_package_with_other_columns_or_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(tmp_path, monkeypatch, "Index,SMILES,Elements,Places")
    with pytest.raises(UserError, match=r"qm9pack 1\.0\.3"):
        conformers.packed_conformers(3, 0, False)
    monkeypatch.setattr(conformers, "find_spec", lambda name: None)
    assert not conformers.has_package()
    with pytest.raises(UserError, match=r"pip install qm9pack==1\.0\.3"):
        conformers.packed_conformers(3, 0, False)


def test_the_strongest_pairs_are_those_of_a_sort() -> None:
    map_PP = measure.point_maps(np.random.default_rng(5).random((1, 1, 6, 6)), np.arange(6))[0]
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    assert top_pairs(map_PP, 4) == sorted(pairs, key=lambda pair: -map_PP[pair])[:4]


def test_a_drawing_has_the_bonds_of_the_molecule() -> None:
    made = conformers.drawing("C#CC=O")
    assert made.symbols_A == ["C", "C", "C", "O"]
    assert made.bonds == [(0, 1, 3.0), (1, 2, 1.0), (2, 3, 2.0)]
    assert made.places_A2.shape == (4, 2)
    with pytest.raises(UserError, match="cannot be drawn"):
        conformers.drawing("C(")


def test_figures_show_every_layer_and_count_linked_pairs() -> None:
    layers = [Interval(0.4, 0.6, 0.5), Interval(0.2, 0.4, 0.3)]
    found: dict[str, Any] = {"trained": {"near": layers, "far": layers[::-1]}}
    figure = similarity_by_layer(found, {"paper": {"near": 0.7}}, "run")
    FigureCanvasAgg(figure).draw()
    near, far = figure.axes
    heights = [
        [np.asarray(line.get_ydata()).tolist() for line in axes.lines] for axes in (near, far)
    ]
    assert heights == [[[0.5, 0.3], [0.7, 0.7]], [[0.3, 0.5]]]
    made = conformers.drawing("CCO")
    map_PP = np.array([[0, 0.1, 0.3], [0.1, 0, 0.2], [0.3, 0.2, 0]])
    figure = strongest_pairs(map_PP, made.places_A2, made.symbols_A, made.bonds, "molecule")
    FigureCanvasAgg(figure).draw()
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "strong and linked: 1",
        "strong, not linked: 1",
    ]
