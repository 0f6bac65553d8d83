"""Personal recommendations, by hand-made cases."""

import pytest

from agents.personal import HOUR_MS, Taste, recommend, related
from streams.events import Neighbour, Neighbourhood, ProductNeighbours

NOW = 100 * HOUR_MS


def hood(**scores: float) -> Neighbourhood:
    return Neighbourhood(10, 10.0, 0.0, tuple(Neighbour(name, score, 1.0) for name, score in scores.items()))


KNOWN = {
    "lamp": related(ProductNeighbours("lamp", hood(bulb=0.5, shade=0.4), hood(bulb=0.9), 0)),
    "book": related(ProductNeighbours("book", hood(mark=0.8, shade=0.4), hood(), 0)),
}
STEADY = Taste(fade=1.0, bought_share=0.5, seen_share=0.5)


def test_scores_are_summed_over_sources_and_relations() -> None:
    found = recommend([("lamp", "viewed", NOW), ("book", "viewed", NOW)], (), KNOWN.get, (), now_ms=NOW, taste=STEADY)
    assert [one.product_id for one in found] == ["bulb", "mark", "shade"]
    assert [one.score for one in found] == pytest.approx([0.7, 0.4, 0.4])


def test_the_reason_is_what_adds_most() -> None:
    found = recommend([("lamp", "carted", NOW), ("book", "viewed", NOW)], (), KNOWN.get, (), now_ms=NOW, taste=STEADY)
    bulb, shade, mark = found
    assert (bulb.because, bulb.action, bulb.relation) == ("lamp", "carted", "often bought with")
    assert bulb.reason == "carted lamp, often bought with it"
    assert (shade.product_id, shade.because, shade.relation) == ("shade", "lamp", "often seen with")
    assert mark.reason == "viewed book, often seen with it"


def test_an_action_fades_and_a_purchase_fades_slowly() -> None:
    day = 24 * HOUR_MS
    for action, scores in (("viewed", 1 / 2), ("bought", 0.5 * 2 ** (-1 / 30))):
        (bulb, *_) = recommend([("lamp", action, NOW)], (), KNOWN.get, (), now_ms=NOW + day, taste=STEADY)  # type: ignore[list-item]
        assert bulb.score == pytest.approx(0.7 * scores)


def test_an_action_fades_with_each_newer_one_whatever_the_clock_says() -> None:
    recent = [("lamp", "viewed", NOW - 2), ("book", "viewed", NOW - 1), ("book", "viewed", NOW)]
    taste = Taste(fade=0.5, half_life_ms=10**15, bought_share=0.0, seen_share=1.0)
    scores = {r.product_id: r.score for r in recommend(recent, (), KNOWN.get, (), now_ms=NOW, taste=taste)}  # type: ignore[arg-type]
    assert scores == pytest.approx({"bulb": 0.25 * 0.5, "shade": 0.25 * 0.4 + 1.5 * 0.4, "mark": 1.5 * 0.8})


def test_a_purchase_makes_no_action_older() -> None:
    recent = [("lamp", "viewed", NOW - 5), *[(f"x{n}", "bought", NOW) for n in range(9)]]
    taste = Taste(fade=0.5, half_life_ms=10**15, bought_share=0.0, seen_share=1.0)
    (bulb, *_) = recommend(recent, (), KNOWN.get, (), now_ms=NOW, taste=taste)  # type: ignore[arg-type]
    assert bulb.score == pytest.approx(0.5)


def test_what_was_only_removed_recommends_nothing() -> None:
    assert recommend([("lamp", "removed", NOW)], (), KNOWN.get, (), now_ms=NOW) == []


def test_nothing_is_recommended_that_was_bought_or_lies_in_the_cart() -> None:
    recent = [("lamp", "viewed", NOW), ("bulb", "carted", NOW)]
    found = recommend(recent, {"shade"}, KNOWN.get, ["bulb", "shade", "sofa"], now_ms=NOW)  # type: ignore[arg-type]
    assert [one.product_id for one in found] == ["sofa"]


def test_what_was_taken_out_of_the_cart_may_be_recommended_again() -> None:
    recent = [("lamp", "viewed", NOW), ("bulb", "carted", NOW), ("bulb", "removed", NOW + 1)]
    found = recommend(recent, (), KNOWN.get, (), now_ms=NOW)  # type: ignore[arg-type]
    assert found[0].product_id == "bulb"


def test_what_is_out_of_stock_leaves_its_place_to_the_next() -> None:
    found = recommend(
        [("lamp", "viewed", NOW)],
        (),
        KNOWN.get,
        ["sofa", "chair"],
        2,
        now_ms=NOW,
        in_stock=lambda p: p not in ("bulb", "sofa"),
    )
    assert [one.product_id for one in found] == ["shade", "chair"]


def test_fallbacks_are_the_category_and_then_everything() -> None:
    found = recommend(
        [], (), KNOWN.get, ["sofa", "atlas"], 3, now_ms=NOW, category="books", trending_in_category=["atlas"]
    )
    assert [(one.product_id, one.reason) for one in found] == [("atlas", "trending in books"), ("sofa", "trending")]


def test_the_order_of_what_is_known_changes_nothing() -> None:
    recent = [("lamp", "viewed", NOW), ("book", "carted", NOW - HOUR_MS), ("lamp", "removed", NOW), ("x", "viewed", 0)]
    one = recommend(recent, (), KNOWN.get, (), now_ms=NOW)  # type: ignore[arg-type]
    assert one == recommend(recent[::-1], (), KNOWN.get, (), now_ms=NOW)  # type: ignore[arg-type]
