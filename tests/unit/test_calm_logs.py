import logging

from streams.calm_logs import OnceInAWhile


def said(filter_: OnceInAWhile, level: int, text: str, *args: object) -> bool:
    return filter_.filter(logging.LogRecord("aiokafka", level, __file__, 1, text, args, None))


def test_a_warning_is_said_once_in_a_while_whatever_it_names() -> None:
    calm = OnceInAWhile(every_s=60)
    assert said(calm, logging.ERROR, "no connection to %s", 1)
    assert not said(calm, logging.ERROR, "no connection to %s", 2)
    assert said(calm, logging.ERROR, "no metadata")


def test_it_is_said_again_when_the_while_is_over() -> None:
    calm = OnceInAWhile(every_s=0)
    assert said(calm, logging.WARNING, "no metadata")
    assert said(calm, logging.WARNING, "no metadata")


def test_what_is_only_told_is_always_told() -> None:
    calm = OnceInAWhile(every_s=60)
    assert said(calm, logging.INFO, "joined")
    assert said(calm, logging.INFO, "joined")
