"""The clocks of a cluster's nodes."""

import itertools

from digit_search.cluster.nodes import clock_offset


def test_the_offset_comes_from_the_quickest_round_trip():
    # Our clock before and after each request: trips of 4, 1 and 2 seconds. The other clock is 10 seconds ahead.
    ours = iter([0.0, 4.0, 10.0, 11.0, 20.0, 22.0])
    theirs = iter([13.9, 20.5, 30.1])
    assert clock_offset(lambda: next(theirs), lambda: next(ours), rounds=3) == (10.0, 0.5)


def test_a_clock_that_stands_still_has_no_offset():
    assert clock_offset(lambda: 5.0, itertools.repeat(5.0).__next__, rounds=2) == (0.0, 0.0)
