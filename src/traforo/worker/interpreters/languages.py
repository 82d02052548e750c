"""How an interpreter of each language is started and asked: its command, what it is told first, the form of requests.

Pure but for reading the kernels, which are files of this package. A kernel reaches its interpreter through a pipe and
leaves no file in the sandbox.
"""

from __future__ import annotations

import marshal
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources, util

from traforo.worker.interpreters import marks, trims

RUNTIMES = ("python", "node", "bash")
FILE_NAME = "<traforo>"
"""What tracebacks would say of a kernel's own code."""

_PYTHON_LOADER = (
    "import posix,sys\n"
    "def r(n):\n"
    " b=b''\n"
    " while len(b)<n:\n"
    "  p=posix.read(0,n-len(b))\n"
    "  if not p:posix._exit(0)\n"
    "  b+=p\n"
    " return b\n"
    "n=r(32);m=r(4);c=r(int(r(8)));t=r(int(r(8)))\n"
    "if m==sys.modules['_frozen_importlib_external'].MAGIC_NUMBER:\n"
    " import marshal;c=marshal.loads(c)\n"
    f"else:c=compile(t,'{FILE_NAME}','exec')\n"
    "g={'__name__':'traforo'};exec(c,g);g['main'](n)\n"
)
_NODE_LOADER = (
    "{const f=require('fs'),r=n=>{const b=Buffer.alloc(n);let a=0;while(a<n){const p=f.readSync(9,b,a,n-a);"
    "if(!p)process.exit(0);a+=p}return String(b)},n=r(32),s=r(Number(r(8)));"
    f"require('vm').runInThisContext(s,'{FILE_NAME}')(n)}}"
)
_NODE_START = 'exec node -e "$1" 9<&0 8>&1 </dev/null'
_LINE_ROOM = 3500  # of a shell's line, quotes and all, in its piece


@dataclass(frozen=True, slots=True)
class Language:
    """One language."""

    name: str
    programs: tuple[str, ...]
    """Interpreters, the best first."""
    arguments: tuple[str, ...]
    first: Callable[[bytes], Iterator[bytes]]
    """Gives, for a nonce, the pieces that are written before any request."""
    run: Callable[[str, bytes, Mapping[bytes, bytes]], Iterator[bytes]]
    """Gives the pieces that ask for a run: its ULID, the code, variables for its time."""
    again: Callable[[str, int], Iterator[bytes]]
    """Gives the pieces that ask for what is not known of a run: its ULID, how many results are known."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment."""
    interrupt: Callable[[str], Iterator[bytes]] | None = None
    """Gives the pieces that ask it to break a run, where its loop listens and a signal may come at a bad moment."""
    awaited: bool = True
    """Whether a missing interpreter shows only when it does not get ready."""


@dataclass(frozen=True, slots=True)
class Languages:
    """All languages, their kernels read once."""

    by_name: Mapping[str, Language]

    def __getitem__(self, name: str) -> Language:
        return self.by_name[name]


def load() -> Languages:
    """Read the kernels."""
    place = resources.files(__package__).joinpath("kernels")
    texts = {name: place.joinpath(name).read_text() for name in ("python.py", "node.js", "bash.sh")}
    texts["python.py"] = trims.trim(texts["python.py"])
    code = compile(texts["python.py"], FILE_NAME, "exec", dont_inherit=True, optimize=2)
    compiled = marshal.dumps(_without_lines(code))
    found = (
        Language(
            "python",
            ("python3", "python"),
            ("-S", "-c", _PYTHON_LOADER),
            lambda nonce: _python_first(nonce, compiled, texts["python.py"].encode()),
            _run,
            _again,
            awaited=False,
        ),
        Language(
            "node",
            ("/bin/sh",),
            ("-c", _NODE_START, "traforo", _NODE_LOADER),
            lambda nonce: _node_first(nonce, texts["node.js"].encode()),
            _run,
            _again,
            interrupt=lambda run: marks.request("I", [run.encode()]),
        ),
        Language(
            "bash",
            ("bash",),
            ("--norc", "--noprofile", "--noediting", "-i"),
            lambda nonce: _bash_first(nonce, texts["bash.sh"]),
            _bash_run,
            _bash_again,
            env={"PS1": "", "PS2": "", "PROMPT_COMMAND": ""},
        ),
    )
    return Languages({language.name: language for language in found})


def _without_lines(code: types.CodeType) -> types.CodeType:
    """Return byte code that does not say where its lines are: no traceback shows them, and it is a third smaller."""
    constants = tuple(_without_lines(one) if isinstance(one, types.CodeType) else one for one in code.co_consts)
    return code.replace(co_consts=constants, co_linetable=b"")


def _python_first(nonce: bytes, compiled: bytes, text: bytes) -> Iterator[bytes]:
    """Give the kernel as byte code for the Python that we run on, and as text for every other."""
    sizes = (b"%08d" % len(compiled), b"%08d" % len(text))
    yield from _pieces(nonce + util.MAGIC_NUMBER + sizes[0] + compiled + sizes[1] + text)


def _node_first(nonce: bytes, text: bytes) -> Iterator[bytes]:
    yield from _pieces(nonce + b"%08d" % len(text) + text)


def _bash_first(nonce: bytes, text: str) -> Iterator[bytes]:
    yield b"__traforo_nonce=%b\n" % nonce
    for line in text.splitlines():
        if not line.startswith("#"):
            yield line.encode() + b"\n"


def _pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), marks.MAX_PIECE_BYTES):
        yield data[at : at + marks.MAX_PIECE_BYTES]


def _run(run: str, code: bytes, env: Mapping[bytes, bytes]) -> Iterator[bytes]:
    return marks.request("R", [run.encode(), code, *_flat(env)])


def _flat(env: Mapping[bytes, bytes]) -> list[bytes]:
    return [part for pair in env.items() for part in pair]


def _again(run: str, seen: int) -> Iterator[bytes]:
    return marks.request("S", [run.encode(), b"%d" % seen])


def claim(env: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """Give the pieces that tell a prepared interpreter that somebody uses it, with variables that it lacks."""
    return marks.request("C", _flat(env))


def warm(modules: Iterable[str]) -> Iterator[bytes]:
    """Give the pieces that ask a prepared Python to import modules; it says again that it is ready."""
    return marks.request("P", [name.encode() for name in modules])


def script(path: str, code: bytes, env: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """Give the pieces that turn a prepared Python into a script: it keeps the code at `path`, runs it and ends."""
    return marks.request("X", [path.encode(), code, *_flat(env)])


def _bash_run(run: str, code: bytes, env: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """Give lines: code and variables in pieces, the run, its end. Each line is whole or not there."""
    yield from _assigned(b"__traforo_code", code)
    prefix = b""
    for number, (name, value) in enumerate(env.items()):
        yield from _assigned(b"__traforo_%d" % number, value)
        prefix += b'%b="$__traforo_%d" ' % (name, number)
    yield from _assigned(b"__traforo_how", prefix + b'eval "$__traforo_code"')
    yield b"__traforo_begin %b\n" % run.encode()
    yield b'eval "$__traforo_how" </dev/null\n'
    yield b"__traforo_done $?\n"


def _bash_again(run: str, seen: int) -> Iterator[bytes]:  # noqa: ARG001 - a shell has no results
    yield b"__traforo_again %b\n" % run.encode()


def _assigned(name: bytes, value: bytes) -> Iterator[bytes]:
    step = _LINE_ROOM // 4  # a quote becomes four characters
    sign = b"="
    for at in range(0, max(len(value), 1), step):
        yield b"%b%b'%b'\n" % (name, sign, value[at : at + step].replace(b"'", b"'\\''"))
        sign = b"+="
