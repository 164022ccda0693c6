"""Adapters that look where forget inputs differ from normal ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from letheon.chat import Encoded
from letheon.errors import InputError
from letheon.forward import can_pack, collate
from letheon.objective import Objective
from letheon.store import Store
from letheon.train import UnlearnConfig
from letheon.train.contrast import Moments, contrast_directions
from letheon.train.dataset import Forget, UnlearnDataset
from letheon.train.prepare import contrasted, prepare
from letheon.train.reference import ReferenceCache


def second_moment(rows: torch.Tensor) -> torch.Tensor:
    return rows.T @ rows / len(rows)


def test_the_direction_only_forget_inputs_have_comes_first() -> None:
    # Both vary along axis 0, and normal inputs even more; only forget inputs vary along axis 2.
    forget, normal = torch.diag(torch.tensor([4.0, 0.1, 1.0])), torch.diag(torch.tensor([9.0, 0.1, 0.01]))
    row = contrast_directions(forget, normal, rank=1, shrinkage=1e-3)[0]
    assert row.abs().argmax() == 2
    assert row[:2].abs().max() < 1e-3 * row[2].abs()


def test_rows_have_the_mean_square_of_a_random_adapter_on_forget_inputs() -> None:
    torch.manual_seed(0)
    forget, normal = second_moment(torch.randn(50, 7)), second_moment(torch.randn(40, 7) * 2)
    rows = contrast_directions(forget, normal, rank=3)
    assert rows.shape == (3, 7)
    energy = ((rows @ forget) * rows).sum(1)
    torch.testing.assert_close(energy, (forget.trace() / 21).expand(3), rtol=1e-4, atol=0)


def test_rows_solve_the_generalised_eigenproblem() -> None:
    torch.manual_seed(1)
    forget, normal = second_moment(torch.randn(90, 5)), second_moment(torch.randn(80, 5))
    rows = contrast_directions(forget, normal, rank=5, shrinkage=0.1).double()
    ridged = (normal + 0.1 * normal.trace() / 5 * torch.eye(5)).double()
    ratios = ((rows @ forget.double()) * rows).sum(1) / ((rows @ ridged) * rows).sum(1)
    assert ratios.tolist() == sorted(ratios.tolist(), reverse=True)
    for row, ratio in zip(rows, ratios, strict=True):
        torch.testing.assert_close(forget.double() @ row, ratio * ridged @ row, rtol=1e-4, atol=1e-5)


def test_directions_exist_for_fewer_inputs_than_dimensions() -> None:
    rows = contrast_directions(second_moment(torch.randn(3, 16)), second_moment(torch.randn(2, 16)), rank=8)
    assert torch.isfinite(rows).all()


def test_moments_are_those_of_the_positions_before_answer_tokens() -> None:
    first, second = nn.Linear(2, 3), nn.Linear(2, 3)
    moments = Moments({"q": first, "k": second})
    hidden = torch.tensor([[[1.0, 0.0], [2.0, 1.0], [5.0, 5.0]]])
    with moments.watching({"predictors": torch.tensor([1])}):
        first(hidden)
        second(hidden)
    # Token 2 is the answer; position 1 predicts it.
    assert moments.mean("q").tolist() == [[4.0, 2.0], [2.0, 1.0]]
    # One moment serves both layers that read the same tensor.
    assert moments.shared == {"k": "q"}
    assert moments.mean("k").tolist() == moments.mean("q").tolist()
    first(hidden)
    assert moments.mean("q")[0, 0] == pytest.approx(4.0)


@pytest.mark.parametrize("packed", [False, True])
def test_moments_everywhere_leave_out_padding_alone(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letheon.train.contrast.STRIDE", 1)
    layer = nn.Embedding(10, 2).requires_grad_(False)
    linear = nn.Linear(2, 1)
    moments = Moments({"q": linear}, everywhere=True)
    # Packed, the shared beginning stands once and the last token, which predicts nothing, is not there at all.
    sequences = [Encoded([1, 2, 3, 4], [False, False, True, True]), Encoded([1, 2, 5], [False, False, True])]
    batch = collate(sequences, pad_token_id=0, packed=packed)
    with moments.watching(batch):
        linear(layer(batch["input_ids"]))
    there = layer(torch.tensor([1, 2, 3] if packed else [1, 2, 3, 4, 1, 2, 5]))
    torch.testing.assert_close(moments.mean("q"), there.T @ there / len(there))
    monkeypatch.setattr("letheon.train.contrast.STRIDE", 2)
    every_second = Moments({"q": linear}, everywhere=True)
    with every_second.watching(batch):
        linear(layer(batch["input_ids"]))
    torch.testing.assert_close(every_second.mean("q"), there[::2].T @ there[::2] / len(there[::2]))


def test_more_directions_than_there_are() -> None:
    with pytest.raises(InputError, match="5 directions of a layer that reads 4 numbers: give at most so many"):
        contrast_directions(torch.eye(4), torch.eye(4), 5)


def test_moments_of_a_layer_that_reads_a_list_of_tokens() -> None:
    """As the layers of a mixture of experts do: rows and positions are one dimension."""
    layer, hidden = nn.Linear(2, 3), torch.tensor([[[1.0, 0.0], [2.0, 1.0]], [[5.0, 5.0], [1.0, 3.0]]])
    found = []
    for given in (hidden, hidden.flatten(0, 1)):
        moments = Moments({"q": layer})
        with moments.watching({"predictors": torch.tensor([1, 3])}):
            layer(given)
        found.append(moments.mean("q").tolist())
    assert found[0] == found[1] == [[2.5, 2.5], [2.5, 5.0]]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_changes_look_where_old_answers_differ_from_whole_normal_dialogues(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuning: str
) -> None:
    monkeypatch.setattr("letheon.train.contrast.STRIDE", 1)
    monkeypatch.setattr("letheon.train.prepare.LOOKED_AT", 3)
    draw = torch.Generator().manual_seed(0)
    drawn = [torch.randint(3, 90, (12,), generator=draw).tolist() for _ in range(12)]
    sequences = [Encoded(ids, [False] * 8 + [True] * 4) for ids in drawn]
    old, normal = sequences[:6], sequences[6:]
    model, new = tiny_model(), "contrast" if tuning == "lora" else None
    if tuning == "lora":
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    # Packed, what predicts nothing is not there.
    assert can_pack(model)
    args = UnlearnConfig(output_dir=str(tmp_path), directions=2, damping=None)
    found = prepare(
        model,
        contrasted(model, args, new),
        UnlearnDataset([Forget(one, (), ()) for one in old], normal),
        ReferenceCache(Store(), None, top_k=4, pad_token_id=0, batch_size=4),
        objective=Objective(),
        args=args,
        adapter_init=new,
        unasked=list,
    )
    layer = model.get_decoder().layers[0].self_attn.q_proj
    read: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0][0]))

    def moment(sequences: Sequence[Encoded], first: int) -> torch.Tensor:
        read.clear()
        for sequence in sequences:
            model(torch.tensor([sequence.ids]))
        return second_moment(torch.cat([rows[first:-1] for rows in read]).detach())

    rows = found.directions[layer.weight] if tuning == "full" else layer.lora_A["default"].weight
    assert rows.requires_grad is False
    wanted = contrast_directions(moment(old, 7), moment(normal[::2], 0), 2)
    # Their signs are nobody's choice.
    torch.testing.assert_close(rows.T @ rows, wanted.T @ wanted, rtol=1e-3, atol=1e-4)
