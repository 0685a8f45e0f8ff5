"""What is kept of predictions: every row that was read, once, whichever process read it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lit_seqlm.data.annotated import AnnotatedData
from lit_seqlm.data.annotated_table import AnnotatedTable
from lit_seqlm.task.site_beside import site_card
from lit_seqlm.task.site_scores import SiteScores
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer
from tests.made_sites import CLASSES, MadeSites

NAMES = ["valid_0", "valid_1", "valid_2", "valid_3"]
EMPTY = {"residue": 1, "pair": 2, "chain": 3}  # the row without any label


class Unlabelled(MadeSites):
    """One sequence of each split has no label; the shortest has one residue, so no pair at all."""

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable:
        table = super().table(split, tokenizer)
        table.labels[EMPTY[self.site]] = np.full_like(table.labels[EMPTY[self.site]], -1)
        if self.site == "pair":
            table.sequences[0], table.labels[0] = "A", table.labels[0][:1, :1]
        return table


def scored(site: str, rank: int, num_ranks: int) -> tuple[SiteScores, AnnotatedData]:
    """Of one process, with logits that are the row's number and are the same in every process."""
    tokenizer = AminoAcidTokenizer("cls", "keep", False)
    source = Unlabelled("", site, 4, 6)
    data = AnnotatedData(source, tokenizer, 1, 1, 8, None, "error", None, 1)
    data.setup()
    data.trainer = SimpleNamespace(global_rank=rank, world_size=num_ranks)
    scores = SiteScores(site, source.classes, "q", {"val": "valid"})
    scores.begin(data, 0)
    for batch in data.exact_dataloader("valid"):
        logits = torch.zeros(*batch.sites.shape, len(source.classes))
        logits[..., 0] = batch.rows_B.view(-1, *[1] * (batch.sites.ndim - 1)).float()
        scores.update("val", logits, batch, keep=True)
    return scores, data


def of_many(site: str, num_ranks: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the processes write together."""
    ranks = [scored(site, rank, num_ranks)[0] for rank in range(num_ranks)]
    parts = [{"kept": one.kept["val"]} for one in ranks]
    said = {"ranks": parts} if num_ranks > 1 else parts[0]
    monkeypatch.setattr("lit_seqlm.task.site_scores.of_all_ranks", lambda mine: said)
    ranks[0].write(folder, writes=True)
    with np.load(folder / "predictions.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("site", EMPTY)
@pytest.mark.parametrize("num_ranks", [1, 3])
def test_every_row_in_gives_a_row_out(
    site: str, num_ranks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one without any label; of three processes two read a row more, silenced, which takes no label away."""
    arrays = of_many(site, num_ranks, tmp_path, monkeypatch)
    assert arrays["valid_names"].tolist() == NAMES
    table = Unlabelled("", site, 4, 6).table("valid", None)
    assert arrays["valid_lengths"].tolist() == [len(sequence) for sequence in table.sequences]
    whole = [
        label[np.triu_indices(len(label), 1)] if site == "pair" else np.atleast_1d(label)
        for label in table.labels
    ]
    assert np.array_equal(arrays["valid_labels"], np.concatenate(whole))
    chance = np.exp(np.arange(4.0)) / (np.exp(np.arange(4.0)) + len(CLASSES[site]) - 1)
    first = np.repeat(chance, [len(one) for one in whole])
    found = arrays["valid_probabilities"]
    found = 1 - found if site == "pair" else found[:, 0]
    np.testing.assert_allclose(found.astype(float), first, atol=1e-3)


def test_copies_of_a_sequence_share_a_number_and_the_card_counts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def copied(self: MadeSites, split: str, tokenizer: Any) -> AnnotatedTable:
        table = made(self, split, tokenizer)
        table.sequences[2:] = [table.sequences[3], table.sequences[3]]
        table.labels[2:] = [table.labels[3], table.labels[3]]
        table.scopes = {
            name: [*parts[:2], parts[3], parts[3]] for name, parts in table.scopes.items()
        }
        return table

    made = MadeSites.table
    assert "copies" not in site_card(scored("residue", 0, 1)[0])
    monkeypatch.setattr(MadeSites, "table", copied)
    for site in ("residue", "pair"):
        scores, data = scored(site, 0, 1)
        table = data.tables["valid"]
        assert table.same_P.tolist() == [0, 1, 2, 2]
        assert (table.num_proteins, table.num_distinct) == (4, 3)
        assert site_card(scores)["copies"] == {"valid": "4 sequences, 3 distinct"}
        assert (
            scores.collect("val")[f"distinct_{'proteins' if site == 'pair' else 'sequences'}"] <= 3
        )
