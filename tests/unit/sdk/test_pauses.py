from traforo.sdk import pauses


def test_pauses_grow_up_to_an_end() -> None:
    """Each is longer than the one before, none is longer than the longest, and after a while there is none."""
    outage, now, found = pauses.Outage(), 0.0, []
    while (pause := outage.pause(now)) is not None:
        found.append(pause)
        now += pause
    assert found[0] == pauses.FIRST_SECONDS
    assert found == sorted(found)
    assert max(found) == pauses.LONGEST_SECONDS
    assert pauses.GIVE_UP_SECONDS < now <= pauses.GIVE_UP_SECONDS + pauses.LONGEST_SECONDS


def test_an_outage_that_is_over_is_forgotten() -> None:
    """The next one starts from the beginning."""
    outage = pauses.Outage()
    outage.pause(0.0)
    outage.pause(1.0)
    outage.over()
    assert outage.pause(1000.0) == pauses.FIRST_SECONDS
