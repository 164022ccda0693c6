from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from letheon.screen.head import (
    BACKGROUND,
    RIDGES,
    Data,
    are_apart,
    calibrate,
    fit_head,
    log_losses,
    make_folds,
    softmax,
    squared_distances,
)


def test_softmax_and_log_losses_in_closed_form() -> None:
    logits = np.log(np.array([[0.25, 0.75], [0.5, 0.5]]))
    probabilities = softmax(logits + 1000)
    np.testing.assert_allclose(probabilities, [[0.25, 0.75], [0.5, 0.5]])
    undesired = np.array([True, False])
    np.testing.assert_allclose(log_losses(probabilities, undesired), [-np.log(0.75), np.log(2)])


def test_squared_distances_of_arrays_and_sparse_matrices() -> None:
    left, right = np.array([[0.0, 3.0], [1.0, 1.0]]), np.array([[4.0, 0.0]])
    np.testing.assert_allclose(squared_distances(left, right), [[25.0], [10.0]])
    np.testing.assert_allclose(squared_distances(sparse.csr_matrix(left), sparse.csr_matrix(right)), [[25.0], [10.0]])


def test_calibration_recovers_what_the_scores_mean() -> None:
    draw = np.random.default_rng(0)
    scores = draw.uniform(0, 1, (20_000, 4))
    true = 1 - softmax(3 * scores)[:, 0]
    assert calibrate(scores, draw.random(len(true)) < true) == pytest.approx(1 / 3, rel=0.1)


def test_few_labels_leave_the_temperature_nearly_as_it_is() -> None:
    right = calibrate(np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([False, True]))
    assert 1 / 12 < right < 1 / 6


def blobs(draw: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two rings, which no line tells apart."""
    columns = np.arange(n) % 2
    angles = draw.uniform(0, 2 * np.pi, n)
    radius = np.where(columns == 1, 1.5, 0.5) + draw.normal(0, 0.1, n)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1), columns


def test_the_kernel_tells_apart_what_no_line_does_and_held_out_agrees_with_new_rows() -> None:
    draw = np.random.default_rng(1)
    rows, columns = blobs(draw, 120)
    folds = make_folds([c == 1 for c in columns], [str(n) for n in range(120)], 0)
    head, held_out = fit_head(Data(rows, columns, np.arange(120), ["normal", "bad"]), folds)
    new, truth = blobs(draw, 200)
    found = head.probabilities(new)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1) == truth).mean() > 0.97
    assert (held_out.argmax(axis=1) == columns).mean() > 0.97


def test_background_is_learnt_from_and_never_held_out() -> None:
    draw = np.random.default_rng(2)
    rows, columns = blobs(draw, 40)
    far = np.full((10, 2), 5.0)
    owners = np.array([*range(40), *[BACKGROUND] * 10])
    folds = make_folds([c == 1 for c in columns], [str(n) for n in range(40)], 0)
    data = Data(np.concatenate([rows, far]), np.array([*columns, *[0] * 10]), owners, ["normal", "bad"])
    head, held_out = fit_head(data, folds)
    assert held_out.shape == (40, 2)
    assert head.probabilities(far[:1])[0, 0] > 0.5


def test_what_is_held_out_of_labels_that_mean_nothing_is_chance() -> None:
    draw = np.random.default_rng(4)
    rows, columns = draw.normal(size=(60, 60)) / np.sqrt(60), np.arange(60) % 2
    folds = make_folds([c == 1 for c in columns], [str(n) for n in range(60)], 0)
    _, held_out = fit_head(Data(rows, columns, np.arange(60), ["normal", "bad"]), folds)
    assert (held_out.argmax(axis=1) == columns).mean() < 0.7


def test_the_weights_solve_the_ridge_problem() -> None:
    rows, columns = blobs(np.random.default_rng(3), 30)
    folds = make_folds([c == 1 for c in columns], [str(n) for n in range(30)], 0)
    head, _ = fit_head(Data(rows, columns, np.arange(30), ["normal", "bad"]), folds)
    kernel = np.exp(-head.gamma * squared_distances(rows, rows))
    truth = np.eye(2)[columns] - head.mean
    residuals = [np.abs((kernel + ridge * np.eye(30)) @ head.weights - truth).max() for ridge in RIDGES]
    assert min(residuals) < 1e-10


def test_answers_to_one_question_stay_together_where_they_can() -> None:
    labels, questions = [True, False] * 20, [str(n // 4) for n in range(40)]
    for train, test in make_folds(labels, questions, 0):
        assert not {questions[n] for n in train} & {questions[n] for n in test}
    one_question = make_folds(labels, ["same"] * 40, 0)
    assert not are_apart(one_question, ["same"] * 40)
    assert all({labels[n] for n in train} == {True, False} for train, _ in one_question)


@pytest.mark.parametrize("few", [2, 3, 4])
@pytest.mark.parametrize("shared", [True, False])
def test_few_questions_make_few_folds(few: int, shared: bool) -> None:
    labels = [True] * 20 + [False] * 20
    questions = [f"{n % few}" for n in range(20)] + [f"{n % few}" if shared else f"other {n}" for n in range(20)]
    folds = make_folds(labels, questions, 0)
    assert are_apart(folds, questions)
    assert len(folds) == few
    assert sorted(n for _, test in folds for n in test) == list(range(40))
    assert all({labels[n] for n in train} == {True, False} for train, _ in folds)
