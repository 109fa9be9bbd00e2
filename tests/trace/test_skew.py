"""How uneven the counts are, and the classes of experts, against figures by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trimoe.errors import InputError
from trimoe.trace import ClassRule
from trimoe.trace.skew import class_mix, gini, skew_of


def test_skew_of_known_counts() -> None:
    counts = np.array([[[10, 0, 0, 0]], [[1, 2, 3, 4]]])
    np.testing.assert_allclose(gini(counts), [[0.75], [0.25]])
    found = skew_of(counts)
    assert found["coefficient_of_variation"] == pytest.approx((3**0.5 + 1.25**0.5 / 2.5) / 2)
    assert found["top_pct_token_share"]["1"] == pytest.approx((1 + 0.4) / 2)
    assert found["top_pct_token_share"]["50"] == pytest.approx((1 + 0.7) / 2)
    assert (found["idle_share"], found["median_tokens"], found["busiest_over_mean"]) == (3 / 8, 1.25, 2.8)


def test_classes_follow_their_rule() -> None:
    counts = np.array([[[8, 2, 1, 1, 0, 0]], [[2, 8, 1, 1, 0, 0]]])  # mean 2
    mix = class_mix(counts, ClassRule(hot_above=4, cold_below=0.5))
    assert mix["hot"] == {"expert_share": pytest.approx(1 / 6), "token_share": pytest.approx(8 / 12)}
    assert mix["warm"]["token_share"] == pytest.approx(2 / 12)
    assert mix["cold"] == {"expert_share": pytest.approx(4 / 6), "token_share": pytest.approx(2 / 12)}
    assert mix["changes_per_step_share"] == pytest.approx(2 / 6)
    for rule in ((1, 1), (1, 2), (float("nan"), 0), (4, -1)):
        with pytest.raises(InputError):
            ClassRule(*rule)
