import numpy as np
import pytest

from digit_search.data.reader import read_answers, read_test
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.errors import DataError


def test_answers_are_in_the_order_of_their_ids(tmp_path):
    path = tmp_path / "test_labels.csv"
    path.write_text('ImageId,Label\r\n2,7\r\n"1","0"\r\n3,9\r\n', newline="")
    assert read_answers(path).tolist() == [0, 7, 9]
    assert read_answers(path).dtype == np.uint8


def test_the_embedded_sample_has_an_answer_for_each_test_digit():
    answers = read_answers(SAMPLE_FOLDER / "test_labels.csv")
    assert len(answers) == read_test(SAMPLE_FOLDER / "test.csv.gz").num_rows
    assert set(answers.tolist()) == set(range(10))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "expected the header ImageId,Label, found ''"),
        ("Id,Label\n1,2\n", "expected the header ImageId,Label, found 'Id,Label'"),
        ("ImageId,Label\n", "expected the ImageIds 1 to 0"),
        ("ImageId,Label\n1,10\n", "row 1: expected an ImageId and a Label from 0 to 9, found '1,10'"),
        ("ImageId,Label\n1,2\n2,\n", "row 2: .* found '2,'"),
        ("ImageId,Label\n1,2\n\n2,3\n", "row 2: .* found ''"),
        ("ImageId,Label\n1,2,3\n", "row 1: .* found '1,2,3'"),
        ("ImageId,Label\n1,2\n1,2\n", "the ImageIds 1 to 2, each once"),
        ("ImageId,Label\n0,2\n1,2\n", "the ImageIds 1 to 2, each once"),
        ("ImageId,Label\n1,2\n3,2\n", "the ImageIds 1 to 2, each once"),
        ("ImageId,Label\n²,2\n", "row 1: expected"),
        ("ImageId,Label\n\x00,2\n", "row 1: expected"),
        (f"ImageId,Label\n{'1' * 200_000},2\n", "row 1: expected"),
        ('ImageId,Label\n"1,2\n', "row 1: expected"),
    ],
)
def test_other_content_is_refused(tmp_path, content, found):
    path = tmp_path / "test_labels.csv"
    path.write_text(content, newline="")
    with pytest.raises(DataError, match=rf"test_labels\.csv: .*{found}"):
        read_answers(path)
