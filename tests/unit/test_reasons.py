"""Every reason for which a packet is refused is explained."""

from portslice.network.dataplane import REASONS
from portslice.network.reasons import EXPLANATIONS


def test_each_reason_has_one_explanation() -> None:
    assert sorted(EXPLANATIONS) == sorted(REASONS)
    assert all(text and "\n" not in text for text in EXPLANATIONS.values())
    assert len(set(EXPLANATIONS.values())) == len(EXPLANATIONS)
