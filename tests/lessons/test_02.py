from reading import lesson

LESSON = lesson(2)


def test_numbers_in_the_prose():
    LESSON.run()
    LESSON.check_numbers(claims={}, given=[])
