import json
from pathlib import Path

from lavie.training.journal import WINDOW, Gauge, Journal


def test_rows_after_the_checkpoint_are_cut(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    for total in (1, 2, 3, 4):
        journal.add(total=total, loss=0.5)
    journal.cut(2)
    assert [row["total"] for row in journal.rows()] == [1, 2]


def test_a_line_cut_short_is_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.add(total=1)
    with journal.path.open("a") as file:
        file.write(json.dumps({"total": 2})[:-3])
    assert journal.rows() == [{"total": 1}]
    journal.cut(1)
    journal.add(total=2)
    assert [row["total"] for row in journal.rows()] == [1, 2]


def test_a_row_holds_the_means_since_the_last_one() -> None:
    gauge = Gauge()
    gauge.add({"loss": 1.0})
    gauge.add({"loss": 3.0})
    assert gauge.row()["loss"] == 2.0
    gauge.add({"loss": 5.0})
    assert gauge.row()["loss"] == 5.0


def test_a_gradient_far_above_the_usual_is_told_and_not_counted_in() -> None:
    gauge = Gauge()
    for step in range(WINDOW):
        assert gauge.spike(1.0 + 0.01 * (step % 7)) == ""
    for _ in range(3):
        assert "times the mean" in gauge.spike(50.0)
    assert gauge.spike(1.02) == ""
