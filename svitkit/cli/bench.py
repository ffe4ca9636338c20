"""The verb ``bench``: a bundle on a board, or many bundles on a rack of boards."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from svitkit.cli.options import FINDING, AsJson, Data, Host, Wait
from svitkit.cli.output import answer, progress

if TYPE_CHECKING:
    from svitkit.runtime.bench.baseline import Baseline
    from svitkit.runtime.bench.fleet_results import FleetRun
    from svitkit.runtime.bench.gate import Gate
    from svitkit.runtime.bench.options import BenchOptions

PERCENT = 100


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How runs are measured and judged.

    Attributes:
        data: kind of data, and path.
        wait_s: how long to wait for a board.
        options: what is measured.
        out: file for the record, or for the results.
        baseline: what runs are compared with.
        gate: the limits of the comparison.
    """

    data: str
    wait_s: int
    options: BenchOptions
    out: Path | None
    baseline: Baseline | None
    gate: Gate


def _show_schema(wanted: bool) -> None:
    if wanted:
        from svitkit.runtime.bench.fleet_results import json_schema

        typer.echo(json.dumps(json_schema(), indent=2))
        raise typer.Exit


def bench(
    bundles: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE", help="Folders or single files of 'svitkit build'.")
    ],
    board: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where to run; the board it was built for if not given.")
    ] = None,
    host: Host = None,
    boards: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Run every bundle on each of these boards that it can run on, boards side by side; names of 'svitkit "
            "boards', or of tables in boards.toml.",
        ),
    ] = None,
    wait: Wait = 0,
    data: Data = "digits",
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="Also write the record there; with --boards the results, a line a run."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--continue", help="Go on with the results in FILE: measure what they have no measurement of."),
    ] = False,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Compare with results of --boards, a folder of them (*.jsonl), one a night, or a record (*.json).",
        ),
    ] = None,
    max_slowdown: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT",
            min=0,
            help="A latency that is surely longer than the baseline's by more, with its whole confidence interval, is "
            "a regression; 5 if not given.",
        ),
    ] = None,
    max_growth: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT", min=0, help="The same for bytes of weights and of peak memory; 5 if not given."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Test images to classify on the board.")] = 1000,
    warmup: Annotated[int, typer.Option(min=0, help="Inferences before the samples, at least.")] = 5,
    warmup_time: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="They go on until times are steady, but no longer than this."),
    ] = 5.0,
    repeat: Annotated[int, typer.Option(min=1, help="Samples at least; an emulated board takes at most 10.")] = 50,
    min_time: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Time to measure for at least.")] = 1.0,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Longest time for one run, beside what is asked for.")
    ] = 600.0,
    threads: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Threads of an inference; auto tries 1, 2, 4 ... and takes the fastest; if not given, one for each "
            "(big) core of the board, 1 under emulation.",
        ),
    ] = None,
    cpus: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Cores to stay on: 4-7,9, big, little or all; the fastest cluster if not given."
        ),
    ] = None,
    governor: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="cpufreq governor while measuring; the former one is set again afterwards."),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also time every layer, in inferences of their own.")
    ] = False,
    duration: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="Also run so long without a break, until the board is warm.")
    ] = 0.0,
    frames: Annotated[
        int, typer.Option(metavar="N", min=0, help="Also stream N frames; in step mode each is one time step.")
    ] = 0,
    fps: Annotated[
        float | None,
        typer.Option(metavar="F", min=0.001, help="Frames arrive F a second, late or not; if not given, one by one."),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(metavar="MS", min=0.001, help="A frame is late after so long; the time between two if not given."),
    ] = None,
    energy: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="Also measure energy so long, and idle power before and after, as long each."
        ),
    ] = 0.0,
    require_device: Annotated[
        Literal["cpu", "gpu"] | None,
        typer.Option(help="Measure only if the network runs on such a device; nothing is measured on another one."),
    ] = None,
    _schema: Annotated[
        bool,
        typer.Option("--schema", callback=_show_schema, is_eager=True, help="Show the JSON Schema of the results."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure bundles on boards: correctness, accuracy, latency, memory; and compare with a baseline.

    Exit codes: 0 everything was measured and is valid; 1 an error, or a run failed; 2 wrong usage; 3 a run is not
    valid, or is a regression; 130 interrupted.
    """
    if boards is None and (len(bundles) > 1 or resume):
        raise typer.BadParameter("several bundles, and --continue, need --boards NAME,NAME,...")
    if boards is not None and (board is not None or host is not None or out is None):
        raise typer.BadParameter(
            "--boards takes the place of --board and --host (boards.toml says where boards are), and needs -o FILE"
        )
    if baseline is None and (max_slowdown is not None or max_growth is not None):
        raise typer.BadParameter("--max-slowdown and --max-growth are limits of a comparison and need --baseline PATH")
    from svitkit.runtime.bench.baseline import read_baseline
    from svitkit.runtime.bench.gate import Gate
    from svitkit.runtime.bench.options import BenchOptions, threads_or_auto

    limits = {"max_slowdown": max_slowdown, "max_growth": max_growth}
    wish = Wish(
        data=data,
        wait_s=wait,
        options=BenchOptions(
            limit=limit,
            warmup=warmup,
            warmup_s=warmup_time,
            repeat=repeat,
            min_time_s=min_time,
            timeout_s=timeout,
            threads=threads_or_auto(threads),
            cpus=cpus,
            governor=governor,
            profile=profile,
            duration_s=duration,
            frames=frames,
            fps=fps,
            deadline_ms=deadline,
            energy_s=energy,
            require_device=require_device,
        ),
        out=out,
        baseline=None if baseline is None else read_baseline(baseline, apart_from=out),
        gate=Gate(**{name: value / PERCENT for name, value in limits.items() if value is not None}),
    )
    if boards is None:
        code = _bench_one(bundles[0], board, host, wish, as_json=as_json)
    else:
        with _ended_in_order():
            code = _bench_fleet(bundles, [name.strip() for name in boards.split(",")], wish, resume, as_json=as_json)
    if code:
        raise typer.Exit(code)


def _bench_one(bundle: Path, board: str | None, host: str | None, wish: Wish, *, as_json: bool) -> int:
    """Measures one bundle, and returns the exit code."""
    from svitkit.boards.board import load_board
    from svitkit.cli.fleet_view import comparison_table, is_regression
    from svitkit.evaluate import load_for
    from svitkit.manifest import read_manifest
    from svitkit.runtime.bench.fleet import run_key
    from svitkit.runtime.bench.gate import compare_runs
    from svitkit.runtime.bench.measure import bench as measure
    from svitkit.runtime.bench.profile_table import render_whole
    from svitkit.runtime.bench.record import record_json, write_record

    with answer(as_json) as show:
        manifest = read_manifest(bundle)
        where = load_board(board or manifest.board)
        befores = []
        if wish.baseline is not None:
            run = (run_key(bundle, where), manifest.model.family, manifest.model.mode, manifest.device)
            wish.baseline.require([run])
            befores = wish.baseline.find(*run)
        dataset = load_for(manifest.model, wish.data)
        with progress() as advance:
            record = measure(
                bundle,
                where,
                host=host,
                wait_s=wish.wait_s,
                dataset=dataset,
                options=wish.options,
                progress=advance,
            )
        if wish.out is not None:
            write_record(wish.out, record)
        compared = compare_runs([(befores, record)], wish.gate)[0] if befores else ()
        told = {"comparisons": compared} if compared else {}
        shown = [comparison_table(compared)] if compared else []
        show({"record": json.loads(record_json(record)), **told}, *render_whole(record), *shown)
    return FINDING if not record.valid or is_regression(compared) else 0


def _bench_fleet(bundles: list[Path], boards: list[str], wish: Wish, resume: bool, *, as_json: bool) -> int:
    """Measures bundles on boards, and returns the exit code."""
    from svitkit.boards.board import load_board
    from svitkit.cli.fleet_bars import fleet_bars
    from svitkit.cli.fleet_view import exit_code, view_fleet
    from svitkit.evaluate import load_for_each
    from svitkit.runtime.bench.fleet import Job, plan_jobs, run_fleet
    from svitkit.runtime.bench.fleet_results import open_results
    from svitkit.runtime.bench.gate import compare_runs
    from svitkit.runtime.bench.measure import bench as measure
    from svitkit.runtime.bench.record import BenchRecord

    assert wish.out is not None
    with answer(as_json) as show:
        jobs, skipped = plan_jobs(bundles, [load_board(name) for name in boards])
        planned = [(job.key, job.manifest.model.family, job.manifest.model.mode, job.manifest.device) for job in jobs]
        known = wish.baseline
        if known is not None:
            known.require(planned)
        datasets = load_for_each({job.key.bundle: job.manifest.model for job in jobs}, wish.data)
        with (
            open_results(wish.out, {"data": wish.data, **_measured(wish.options)}, resume=resume) as results,
            fleet_bars(jobs) as bars,
        ):

            def run(job: Job) -> BenchRecord:
                return measure(
                    job.bundle,
                    job.board,
                    wait_s=wish.wait_s,
                    dataset=datasets[job.key.bundle],
                    options=wish.options,
                    progress=bars.begin(job),
                )

            for none in skipped:
                results.add(none)
            runs: list[FleetRun] = run_fleet(jobs, results, run, bars.end)
        befores = {} if known is None else {run[0]: known.find(*run) for run in planned}
        pairs = {
            done.run: (befores[done.run], done.record)
            for done in runs
            if done.record is not None and befores.get(done.run)
        }
        compared = dict(zip(pairs, compare_runs(list(pairs.values()), wish.gate), strict=True))
        result, readable = view_fleet([*runs, *skipped], compared, against=known is not None)
        gate = None if known is None else {"baseline": known.path, **asdict(wish.gate)}
        show({"results": wish.out, "gate": gate, **result}, *readable)
    return exit_code(runs, compared)


def _measured(options: BenchOptions) -> dict[str, Any]:
    """Returns the options that results depend on."""
    return {name: value for name, value in asdict(options).items() if name != "timeout_s"}


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Lets SIGTERM do what Ctrl-C does, so that boards are left in order, and says how to go on."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted: the same command with --continue measures what is missing", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
