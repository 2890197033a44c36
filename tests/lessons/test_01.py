from reading import lesson

LESSON = lesson(1)


def test_numbers_in_the_prose():
    LESSON.run()
    LESSON.check_numbers(claims={}, given=[])
