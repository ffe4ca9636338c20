from __future__ import annotations

import json

from tests.report.records import deploy, record


def test_report_writes_a_page_markdown_and_csv_of_deployments_and_records(svitkit, tmp_path):
    deploy(tmp_path / "one", record(profile=True), method="svitkit,int8")
    (tmp_path / "fleet.jsonl").write_text(
        json.dumps({"record": json.loads((tmp_path / "one" / "record.json").read_text()) | {"board": "host"}}) + "\n"
    )
    done = svitkit(
        "report", "one", "fp32=fleet.jsonl", "-o", "r.html", "--markdown", "r.md", "--csv", "r.csv", "--json"
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["written"] == ["r.html", "r.md", "r.csv"]
    assert [(run["method"], run["board"]) for run in said["runs"]] == [
        ("svitkit,int8", "raspberry-pi-4"),
        ("fp32", "host"),
    ]
    assert "svitkit,int8" in (tmp_path / "r.html").read_text()
    assert "## Runs" in (tmp_path / "r.md").read_text()
    assert (tmp_path / "r.csv").read_text().count("\n") == 3


def test_what_is_no_record_is_an_error_in_one_line_and_leaves_no_page(svitkit, tmp_path):
    done = svitkit("report", "missing.json", "-o", "r.html")
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no file 'missing.json'.")
    assert not (tmp_path / "r.html").exists()
