from pruneexp.stages import Stage, Stages

STAGES = Stages([Stage(tasks=("a",)), Stage(4, ("a", "b"), 0.1), Stage(6)], total_steps=9)


def test_a_step_belongs_to_the_last_stage_that_began():
    assert [STAGES.stages.index(STAGES.of(step)) for step in range(9)] == [0] * 4 + [1] * 2 + [2] * 3


def test_every_stage_but_the_first_starts_afresh():
    assert [step for step in range(9) if STAGES.starts(step)] == [4, 6]


def test_the_place_of_a_step_is_counted_within_its_stage():
    assert [STAGES.place(step) for step in (0, 3, 4, 5, 6, 8)] == [(0, 4), (3, 4), (0, 2), (1, 2), (0, 3), (2, 3)]


def test_one_stage_is_the_whole_training():
    whole = Stages([Stage()], total_steps=5)
    assert [whole.place(step) for step in (0, 4)] == [(0, 5), (4, 5)]
    assert not any(whole.starts(step) for step in range(5))
    assert whole.of(3) == Stage(0, None, None)


def test_of_stages_that_begin_at_one_step_the_last_counts():
    assert Stages([Stage(tasks=("a",)), Stage(0, ("b",))], total_steps=3).of(0).tasks == ("b",)
