"""The verb ``boards``: list them, show one, and keep one that is reached over SSH usable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from svitkit.cli.options import AsJson
from svitkit.cli.output import answer, table

if TYPE_CHECKING:
    from svitkit.boards.board import Board
    from svitkit.boards.gpu import Gpu

SHOW = "show"
HostName = Annotated[
    str, typer.Argument(metavar="HOST", help="user@address[:port], or a board that boards.toml says the host of.")
]


class BoardVerbs(TyperGroup):
    """Takes ``boards``, and ``boards NAME``, for ``boards show``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the verb in front where there is none; ``ctx`` is click's, whose module moves between versions."""
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = [SHOW, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=BoardVerbs,
    help="List the boards that svitkit builds for, or show one; give one back, or clean it.",
    subcommand_metavar="[NAME] | unlock HOST | clean HOST | tunnel HOST",
    rich_markup_mode=None,
)


@app.command(SHOW)
def show_boards(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one board, with its sources.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the boards that svitkit builds for, or show one."""
    from svitkit.boards.board import list_boards, load_board
    from svitkit.boards.hosts import read_hosts

    with answer(as_json) as show:
        if name is not None:
            board = load_board(name)
            show({"board": board}, table(board.title, ("fact", "value", "source"), _board_facts(board)))
            return
        known = list_boards()
        rows = [
            (board.name, board.title, board.mcpu, str(board.cores), *_gpu_cells(board.gpu), board.transport)
            for board in known
        ]
        columns = ("name", "what it is", "CPU", "cores", "GPU", "CUDA", "JetPack", "reached by")
        listed = table("Boards", columns, rows)
        places = [(name, at.board, at.host or "") for name, at in read_hosts().items() if at.board is not None]
        ways = ("name", "board", "host")
        told = [dict(zip(ways, place, strict=True)) for place in places]
        show({"boards": known, "places": told}, listed, *[table("Places", ways, places)] * bool(places))


@app.command("unlock")
def unlock_board(
    host: HostName,
    force: Annotated[bool, typer.Option("--force", help="Also if somebody is at work there: their run fails.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give back the lock of a board that nobody uses any more."""
    from svitkit.boards.hosts import find_host
    from svitkit.boards.upkeep import unlock

    with answer(as_json) as show:
        where = find_host(host)
        done = unlock(where, force=force)
        work = " and was ended" if done.was_in_use else ", which had left"
        whose = f"it was locked by {done.owner} since {done.since}{work}" if done.owner else "it was not locked"
        show({"host": where.destination, "unlocked": done}, f"{where.name} is free: {whose}.")


@app.command("clean")
def clean_board(host: HostName, as_json: AsJson = False) -> None:
    """Remove what svitkit keeps on a board so that it need not be sent again."""
    from svitkit.boards.hosts import find_host
    from svitkit.boards.upkeep import clean

    with answer(as_json) as show:
        where = find_host(host)
        removed = clean(where)
        show({"host": where.destination, "removed_bytes": removed}, f"{where.name}: {removed:,} bytes removed.")


@app.command("tunnel")
def tunnel_to_board(
    host: HostName,
    port: Annotated[int, typer.Option(metavar="P", help="Where the server on the board listens, on 127.0.0.1.")] = 9090,
    local_port: Annotated[
        int | None, typer.Option(metavar="P", help="Port of this machine; a free one if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Reach a server on a board through SSH until Ctrl-C, such as TVM's RPC server, which must not face a network."""
    from svitkit.boards.hosts import find_host
    from svitkit.boards.tunnel import LOOPBACK, open_tunnel

    with answer(as_json) as show:
        where = find_host(host)
        with open_tunnel(where, port=port, local_port=local_port) as tunnel:
            show(
                {"host": where.destination, "address": LOOPBACK, "port": tunnel.port},
                f"{LOOPBACK}:{tunnel.port} leads to {LOOPBACK}:{port} on {where.name}, until Ctrl-C. For TVM: "
                f"tvm.rpc.connect('{LOOPBACK}', {tunnel.port})",
            )
            tunnel.wait()


def _board_facts(board: Board) -> list[tuple[str, ...]]:
    sources = board.facts.sources
    facts = {
        "name": board.name,
        **({"place": board.place} if board.place is not None else {}),
        "reached by": board.transport,
        "triple": board.triple,
        "cpu": board.mcpu,
        "code may use": ", ".join(board.required_features),
        "cores": str(board.cores),
        "memory_bytes": f"{board.memory_bytes:,}",
        "programs need glibc": board.glibc,
        "system_glibc": board.system_glibc or "unknown",
    }
    given = {key: str(getattr(board.facts, key)) for key in sources if key not in facts}
    told = [(key, value, sources.get(key, "")) for key, value in (facts | given).items()]
    return [*told, *([] if board.gpu is None else _gpu_facts(board.gpu))]


def _gpu_facts(gpu: Gpu) -> list[tuple[str, ...]]:
    ranges = {"cuda": gpu.cuda, "jetpack": gpu.jetpack}
    facts = {key: str(getattr(gpu, key)) for key in gpu.sources} | {
        key: _range(ends) for key, ends in ranges.items() if ends is not None
    }
    if gpu.modules is not None:
        facts["modules"] = ", ".join(gpu.modules)
    return [("gpu: reached by", gpu.api, ""), *((f"gpu: {key}", facts[key], gpu.sources[key]) for key in gpu.sources)]


def _gpu_cells(gpu: Gpu | None) -> tuple[str, str, str]:
    """The GPU of a board, and the versions of CUDA and JetPack that it runs with."""
    return ("", "", "") if gpu is None else (gpu.kind, _range(gpu.cuda), _range(gpu.jetpack))


def _range(ends: tuple[str, str] | None) -> str:
    return "" if ends is None else f"{ends[0]} to {ends[1]}"
