import io

from epigen_utils.book import progress


def test_progress_tells_bars_from_lines(capsys):
    text = b"a/b:  10%|#   | 1/9\r        \ra/b:  50%|##  |\rnoise\nepigen: a/b: wrong (log: x)\na/c--d: 3.1 s\n"
    log = io.StringIO()
    assert progress.follow_build(io.BufferedReader(io.BytesIO(text)), log) is True
    assert log.getvalue() == "noise\nepigen: a/b: wrong (log: x)\na/c--d: 3.1 s\n"
    assert capsys.readouterr().err == "epigen: a/b: wrong (log: x)\na/c--d: 3.1 s\n"
    assert progress.follow_build(io.BufferedReader(io.BytesIO(b"noise\n")), log) is False
