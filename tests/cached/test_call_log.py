"""The log finds the reads that were too old, and no others."""

from call_log import Call, CallLog, Kind, judged, noted


def call(kind, start, end, version=0, count=0, process=0, entity=0):
    return Call(kind, process, entity, start, end, version, count)


WRITTEN = call(Kind.WRITTEN, 10, 20, version=5)


def test_what_was_noted_is_found_again(tmp_path):
    for process, lasting in ((0, True), (1, False)):
        log = CallLog(tmp_path / f"{process}", process, lasting=lasting)
        log.note(Kind.READ, 7, 1, version=2, count=3)
        log.close()
    found = list(noted(sorted(tmp_path.iterdir())))
    assert [(each.process, each.entity, each.start, each.version, each.count) for each in found] == [
        (0, 7, 1, 2, 3),
        (1, 7, 1, 2, 3),
    ]
    assert all(each.end > 1 for each in found)


def test_a_read_that_began_after_a_write_has_to_see_it():
    reads = [call(Kind.READ, start, 99, version=4) for start in (5, 20, 21)]
    assert judged([WRITTEN, *reads]).old == 1
    assert judged([WRITTEN, call(Kind.READ, 21, 99, version=6), call(Kind.READ, 21, 99, entity=1)]).old == 0


def test_what_was_acknowledged_last_need_not_be_the_newest():
    late = call(Kind.WRITTEN, 10, 30, version=3)
    assert judged([WRITTEN, late, call(Kind.READ, 31, 40, version=4)]).old == 1


def test_a_lag_concerns_the_writes_of_other_processes_only():
    mine, yours = [call(Kind.READ, 1000, 2000, version=4, process=process) for process in (0, 1)]
    assert judged([WRITTEN, mine, yours], lag=1e-6).old == 1
    assert judged([WRITTEN, mine, yours], lag=0.5e-6).old == 2


def test_a_count_is_for_everybody_only_once_it_is_active():
    appended, active = call(Kind.APPENDED, 1, 2, count=3), call(Kind.ACTIVE, 1, 10, count=3)
    reads = [call(Kind.READ, start, 99, count=2, process=process) for start in (5, 15) for process in (0, 1)]
    assert judged([appended, active, *reads]).behind == 3


def test_it_is_known_how_late_another_program_was_seen():
    elsewhere = [call(Kind.ELSEWHERE, 1, 1000, version=6), call(Kind.ELSEWHERE, 1, 2000, version=7)]
    verdict = judged([*elsewhere, call(Kind.READ, 3000, 3001, version=5), call(Kind.READ, 3000, 3001, version=7)])
    assert (verdict.old, verdict.elsewhere) == (0, [2e-6])
    assert verdict.elsewhere_at(0.5) == 2e-6
