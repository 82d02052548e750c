# ruff: noqa: ARG001, ARG002, B904, B905, BLE001, D102, D103, PLC0415, PTH120, RUF005, S102, S110, S307, SIM105, T201
# ruff: noqa: UP031
# It is Python 3.8, runs whatever code it is given, imports late, and speaks of itself only to those who read it here.
"""The Python interpreter of a context. It runs inside a sandbox, under whatever Python (3.8 and up) its image has.

Requests come through the pipe that was standard input; answers go out in small pieces on standard output, each behind
a mark that ordinary output does not have, so output and answers keep their order and no thread moves them. Code runs
in `__main__`; its own frames never show. What is not needed for the first line of output is imported when it is
needed: a start counts in milliseconds.
"""

from __future__ import annotations

import _ast
import _signal  # type: ignore[import-not-found]  # no stub; `signal` would import `enum`, which takes milliseconds
import _thread
import builtins
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ONLY_AST = 0x400
TOP_LEVEL_AWAIT = 0x2000
COROUTINE = 0x80
PIECE_BYTES = 4000  # below PIPE_BUF with its mark: nobody else's output can come between
KEPT_BYTES = 16 * 1024 * 1024  # of answers that may be asked for again
BUNDLE_BYTES = 8 * 1024 * 1024  # of one result
TEXT_CHARACTERS = 1024 * 1024
MAX_RESULTS = 1000
SIGINT = 2
FIRST, LAST = 1, 2  # places of a piece in its message
REQUESTS_FD, ANSWERS_FD = 250, 251  # far from those that programs close one by one
CUT = "\u2026"
OWN_FILE = "<traforo>"
FORMATS = (
    ("text/html", "_repr_html_"),
    ("text/markdown", "_repr_markdown_"),
    ("image/svg+xml", "_repr_svg_"),
    ("image/png", "_repr_png_"),
    ("image/jpeg", "_repr_jpeg_"),
    ("application/pdf", "_repr_pdf_"),
    ("text/latex", "_repr_latex_"),
    ("application/json", "_repr_json_"),
    ("application/javascript", "_repr_javascript_"),
)
SITE_WORDS = (b"site", b"path", b"help", b"copyright", b"credits", b"license", b"flags", b"process", b"concurrent")
"""What only code says that may see, or hand on, what `site` adds."""
NO_OPTIONS: dict[str, Any] = {}
MAIN_NAMES = ("__name__", "__doc__", "__package__", "__loader__", "__spec__", "__builtins__", "__annotations__")


def replaced(error: Any) -> Any:
    """Encode what is no UTF-8: stray bytes of file names as they were, other surrogates as escapes."""
    import codecs

    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "traforo")


def joined(fields: list[bytes]) -> bytes:
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def split(data: bytes) -> list[bytes]:
    fields, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        fields.append(data[at + 4 : end])
        at = end
    return fields


def pairs(fields: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2]))


def keep(path: bytes, code: bytes) -> None:
    """Put code where tracebacks and whoever asks for `__file__` look for it; not being able to is no reason to stop."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, code)
        finally:
            os.close(descriptor)
    except OSError:
        pass


class Interrupts:
    """SIGINT: breaks code that runs, never an answer in the middle, and does nothing when no code runs."""

    def __init__(self) -> None:
        self.running = False
        self.held = 0
        self.pending = False

    def arm(self) -> None:
        """Undo what the code before may have set."""
        self.held, self.pending = 0, False
        _signal.signal(SIGINT, self.received)

    def received(self, number: int, frame: Any) -> None:
        if self.running:
            if self.held:
                self.pending = True
            else:
                raise KeyboardInterrupt

    def __enter__(self) -> None:
        self.held += 1

    def __exit__(self, *failure: object) -> None:
        self.held -= 1
        if self.pending and not self.held and _thread.get_ident() == MAIN_THREAD:
            self.pending = False
            raise KeyboardInterrupt


class Answers:
    """What the worker is told: in pieces on standard output, and kept until the next run in case it was lost."""

    def __init__(self, nonce: bytes, interrupts: Interrupts) -> None:
        self.mark = b"\0" + nonce
        self.interrupts = interrupts
        self.lock = _thread.allocate_lock()
        self.run = b""
        self.runs = 0
        self.claimed = False
        self.kept: list[tuple[int, bytes, bytes]] = []
        self.kept_bytes = 0
        self.count = 0
        self.end = b""

    def begin(self, run: bytes) -> None:
        self.run, self.kept, self.kept_bytes, self.count, self.end = run, [], 0, 0, b""
        self.runs += 1

    def hello(self) -> None:
        self.send(b"H", b"%d.%d.%d" % sys.version_info[:3])

    def numbered(self, kind: bytes, fields: list[bytes]) -> None:
        """Send a result or an error of this run."""
        with self.interrupts, self.lock:
            payload = joined([self.run, b"%d" % self.count] + fields)
            if self.kept_bytes + len(payload) <= KEPT_BYTES:
                self.kept.append((self.count, kind, payload))
                self.kept_bytes += len(payload)
            self.count += 1
            self.send(kind, payload)

    def done(self, code: int) -> None:
        self.end = b"%b %d %d %d" % (self.run, code, self.count, self.runs)
        self.send(b"D", self.end)

    def again(self, run: bytes, seen: int) -> None:
        """Send again what the worker has not seen of a run; it is over, or this would wait."""
        if run != self.run or not self.end:
            self.send(b"S", b"%d %d" % (self.runs, self.claimed or self.runs > 0))
            return
        for number, kind, payload in self.kept:
            if number >= seen:
                self.send(kind, payload)
        self.send(b"D", self.end)

    def send(self, kind: bytes, payload: bytes) -> None:
        at, place = 0, FIRST
        while True:
            part = payload[at : at + PIECE_BYTES]
            at += len(part)
            place |= LAST if at >= len(payload) else 0
            self.write(b"%b%b%d%04d%b" % (self.mark, kind, place, len(part), part))
            if place & LAST:
                return
            place = 0

    def write(self, data: bytes) -> None:
        while True:
            try:
                os.write(ANSWERS_FD, data)
                return
            except BlockingIOError:  # a child has set the pipe so, for all who have it
                time.sleep(0.001)


class Handle:
    """What was displayed, for code that wants to display something else there: it is displayed behind it."""

    def __init__(self, show: Display, display_id: Any) -> None:
        self.show = show
        self.display_id = str(id(self)) if display_id is True else str(display_id)

    def display(self, value: Any, **options: Any) -> None:
        self.show(value, **options)

    update = display


class Display:
    """Values as their classes want to be shown."""

    def __init__(self, answers: Answers, pid: int) -> None:
        self.answers = answers
        self.pid = pid

    def __call__(self, *values: Any, **options: Any) -> Any:
        """Show values, in the richest forms they have. With `display_id`, return what can show more in their place."""
        for value in values:
            if isinstance(value, dict) and options.get("raw"):
                self.bundle(chosen(value, options), False)
            else:
                self.show(value, False, options)
        return Handle(self, options["display_id"]) if options.get("display_id") else None

    def show(self, value: Any, main: bool, options: dict[str, Any] = NO_OPTIONS) -> None:
        if not shows_itself(value):
            self.bundle(chosen(formats(value), options), main)

    def bundle(self, found: dict[str, Any], main: bool) -> None:
        if os.getpid() != self.pid:  # a child that the code forked has nobody to tell but its output
            print(found.get("text/plain", ""))
            return
        flush()
        if self.answers.count >= MAX_RESULTS:
            if self.answers.count == MAX_RESULTS:
                print("display: only the first %d results of a run are kept" % MAX_RESULTS, file=sys.stderr)
                self.answers.numbered(b"R", [b"0", b"text/plain", to_bytes(CUT)])
            return
        fields = [b"1" if main else b"0"]
        left = BUNDLE_BYTES
        for name, data in found.items():
            encoded = content(data)
            if encoded is None or len(encoded) > left:
                continue
            left -= len(encoded)
            fields += [to_bytes(str(name)), encoded]
        if len(fields) == 1:
            fields += [b"text/plain", b"(a result of more than %d bytes)" % BUNDLE_BYTES]
        self.answers.numbered(b"R", fields)


def content(data: Any) -> bytes | None:
    """Return the bytes of one form of a value: text, base64 or JSON; None for what is none of it."""
    if isinstance(data, str):
        return to_bytes(data)
    if isinstance(data, (bytes, bytearray, memoryview)):
        import binascii

        return binascii.b2a_base64(data, newline=False)
    import json

    try:
        return json.dumps(data).encode()
    except (TypeError, ValueError, RecursionError):
        return None


def attribute(value: Any, name: str) -> Any:
    """Return an attribute, None where there is none or looking for it fails."""
    try:
        return getattr(value, name, None)
    except Exception:
        return None


def is_open(value: Any) -> bool:
    """Tell whether a value has methods of its own, and not merely any that it is asked for."""
    return not isinstance(value, type) and not callable(attribute(value, "_traforo_asks_for_what_nothing_has_"))


def shows_itself(value: Any) -> bool:
    """Let a value display itself that can; tell whether it has."""
    own = attribute(value, "_ipython_display_") if is_open(value) else None
    if not callable(own):
        return False
    try:
        own()
    except NotImplementedError:
        return False
    except Exception as error:
        print("%s: %s" % (type(error).__name__, error), file=sys.stderr)
        return False
    return True


def chosen(found: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the forms of a value that are wanted."""
    include, exclude = options.get("include"), options.get("exclude") or ()
    return {name: data for name, data in found.items() if name not in exclude and (not include or name in include)}


def formats(value: Any) -> dict[str, Any]:
    """Return the forms of a value by MIME type; its text always."""
    found = {}
    if is_open(value):
        own = attribute(value, "_repr_mimebundle_")
        given = made(own, include=None, exclude=None) if callable(own) else None
        if isinstance(given, tuple) and given:
            given = given[0]
        if isinstance(given, dict):
            found.update(given)
        for name, method in FORMATS:
            if name not in found:
                own = attribute(value, method)
                given = made(own) if callable(own) else None
                if isinstance(given, tuple) and given:
                    given = given[0]
                if given is not None:
                    found[name] = given
        if not found and isinstance(value, getattr(sys.modules.get("matplotlib.figure"), "Figure", ())):
            found["image/png"] = picture(value)
        pretty = sys.modules.get("IPython.lib.pretty")
        if pretty is not None and "text/plain" not in found and callable(attribute(value, "_repr_pretty_")):
            found["text/plain"] = made(pretty.pretty, value)
    if not isinstance(found.get("text/plain"), str):
        found["text/plain"] = repr(value)
    text = found["text/plain"]
    if len(text) > TEXT_CHARACTERS:
        found["text/plain"] = text[:TEXT_CHARACTERS] + CUT
    return found


def made(method: Any, *values: Any, **options: Any) -> Any:
    try:
        return method(*values, **options)
    except Exception as error:
        print("%s: %s" % (type(error).__name__, error), file=sys.stderr)
        return None


def picture(figure: Any) -> bytes:
    import io

    data = io.BytesIO()
    figure.savefig(data, format="png", bbox_inches="tight")
    return data.getvalue()


def flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()  # type: ignore[union-attr]  # whatever it is, the code may have put it there
        except (AttributeError, ValueError, OSError):
            pass


class Watch:
    """Does something to a module right after it was imported: a finder that finds nothing of its own."""

    def __init__(self, hooks: dict[str, Any]) -> None:
        self.hooks = hooks

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        hook = self.hooks.pop(name, None)
        if hook is None:
            return None
        for finder in sys.meta_path:
            search = getattr(finder, "find_spec", None)
            spec = search(name, path, target) if finder is not self and search else None
            if spec is not None:
                self.follow(spec.loader, hook)
                return spec
        return None

    def follow(self, loader: Any, hook: Any) -> None:
        def execute(module: Any) -> None:
            del loader.exec_module
            loader.exec_module(module)
            try:
                hook(module)
            except Exception:
                pass

        try:
            loader.exec_module = execute
        except AttributeError:
            pass


class Site:
    """What `site` adds, directories of packages above all, as late as possible: it takes a third of a start.

    Added when a module is missed or the code may look at what is there, at the latest when the first run was answered.
    """

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts
        self.added = not sys.flags.no_site

    def add(self) -> None:
        if self.added:
            return
        self.added = True
        known_everywhere: Any = builtins
        with self.interrupts:
            here = [sys.path.pop(0)] if sys.path[:1] == [""] else []  # it would name the directory of this moment
            try:
                import site

                site.main()
            except Exception as error:  # somebody's own addition to it
                print("site: %s" % error, file=sys.stderr)
            sys.path[:0] = here
            known_everywhere.exit = known_everywhere.quit = leave

    def add_for(self, code: bytes) -> None:
        if not self.added and any(word in code for word in SITE_WORDS):
            self.add()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if self.added or path is not None:
            return None
        self.add()
        for finder in sys.meta_path:
            search = getattr(finder, "find_spec", None)
            spec = search(name, path, target) if finder is not self and search else None
            if spec is not None:
                return spec
        return None


class Context:
    """An interpreter that keeps its state from run to run."""

    def __init__(self, nonce: bytes) -> None:
        self.pid = os.getpid()
        self.main = sys.modules["__main__"].__dict__
        self.interrupts = Interrupts()
        self.answers = Answers(nonce, self.interrupts)
        self.display = Display(self.answers, self.pid)
        self.site = Site(self.interrupts)
        self.sources: dict[str, str] = {}
        self.future = 0
        self.loop: Any = None

    # ----------------------------------------------------------------------------------------------- start

    def settle(self) -> None:
        """Take the pipes away from the code to come, and make `__main__` what a prompt has."""
        import codecs

        codecs.register_error("traforo", replaced)
        os.dup2(0, REQUESTS_FD, False)  # a sandbox has room for a thousand descriptors at least
        os.dup2(1, ANSWERS_FD, False)
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(  # type: ignore[union-attr]  # the code has put nothing there yet
                encoding="utf-8", errors="traforo", line_buffering=True
            )
        for name in [name for name in self.main if name not in MAIN_NAMES]:
            del self.main[name]
        sys.argv = [""]
        known_everywhere: Any = builtins
        known_everywhere.display = self.display
        known_everywhere.exit = known_everywhere.quit = leave
        hooks = {
            "linecache": self.tell_sources,
            "matplotlib.pyplot": self.join_pyplot,
            "IPython.core.display_functions": self.join_ipython,
        }
        if "linecache" in sys.modules:
            del hooks["linecache"]
        sys.meta_path.insert(0, Watch(hooks))
        sys.meta_path.append(self.site)
        self.interrupts.arm()

    def tell_sources(self, linecache: Any) -> None:
        """Let tracebacks and `inspect` see the code of all runs."""
        for name, code in self.sources.items():
            linecache.cache[name] = (len(code), None, code.splitlines(True), name)

    def join_pyplot(self, pyplot: Any) -> None:
        plain = pyplot.show

        def show(*args: Any, **options: Any) -> Any:
            if str(pyplot.get_backend()).lower() != "agg":
                return plain(*args, **options)
            self.figures()
            return None

        pyplot.show = show

    def join_ipython(self, module: Any) -> None:
        def publish(data: Any, *args: Any, **options: Any) -> None:
            self.display.bundle(dict(data), False)

        module.display = self.display
        module.publish_display_data = publish

    # ----------------------------------------------------------------------------------------------- serve

    def serve(self) -> None:
        self.answers.hello()
        message = b""
        while True:
            head = received(6)
            if head is None:
                return
            payload = received(int(head[2:]))
            if payload is None:
                return
            place = int(head[1:2])
            message = payload if place & FIRST else message + payload  # what a worker left unfinished is dropped
            if place & LAST:
                self.request(head[:1], split(message))

    def request(self, kind: bytes, fields: list[bytes]) -> None:
        if kind == b"S":
            self.answers.again(fields[0], int(fields[1]))
        elif kind == b"C":
            self.answers.claimed = True
            os.environb.update(pairs(fields))
        elif kind == b"P":
            self.warm(fields)
        elif kind == b"X":
            self.become(fields[0], fields[1], pairs(fields[2:]))
        elif kind == b"R":
            self.run(fields[0], fields[1], pairs(fields[2:]))

    def warm(self, names: list[bytes]) -> None:
        """Import what code may well ask for, while nobody waits for anything."""
        self.site.add()
        for name in names:
            try:
                __import__(name.decode())
            except Exception:  # the image has none, or one that does not work: who imports it will hear why
                pass
        import gc

        gc.collect()
        gc.freeze()  # an end would look for cycles in all that is there by now, which takes it longer than all else
        self.answers.hello()

    def become(self, path: bytes, code: bytes, variables: dict[bytes, bytes]) -> None:
        """Run code as a script that was just started, and end with it: nothing of ours is left but our frames."""
        self.site.add()
        os.environb.update(variables)
        for descriptor in (REQUESTS_FD, ANSWERS_FD):
            os.close(descriptor)
        name = os.fsdecode(path)
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, (Watch, Site))]
        sys.argv = [name]
        sys.path[:] = [os.path.dirname(name)] + [place for place in sys.path if place]
        self.main["__file__"] = name
        self.main["__cached__"] = None
        del builtins.display  # type: ignore[attr-defined]  # put there by `settle`
        sys.stdout.reconfigure(line_buffering=False)  # type: ignore[union-attr]  # the code has put nothing there yet
        _signal.signal(SIGINT, _signal.default_int_handler)
        try:
            keep(path, code)
            exec(compile(code, name, "exec", 0, True), self.main)
        except SystemExit:
            raise
        except BaseException as error:
            trace = error.__traceback__
            while trace is not None and trace.tb_frame.f_code.co_filename == OWN_FILE:
                trace = trace.tb_next
            sys.excepthook(type(error), error.with_traceback(trace), trace)
            raise SystemExit(128 + SIGINT if isinstance(error, KeyboardInterrupt) else 1)
        raise SystemExit(0)

    def run(self, run: bytes, code: bytes, variables: dict[bytes, bytes]) -> None:
        self.answers.begin(run)
        name = "<run %d>" % self.answers.runs
        kept = {key: os.environb.get(key) for key in variables}
        os.environb.update(variables)
        self.interrupts.arm()
        status = 0
        try:
            try:
                self.interrupts.running = True
                self.site.add_for(code)
                self.execute(code.decode("utf-8", "surrogatepass"), name)
                self.figures()
            finally:
                self.interrupts.running = False
        except SystemExit as error:
            self.interrupts.running = False
            self.remaining_figures()
            status = exit_code(error)
            if status:
                self.fail(error)
        except BaseException as error:
            self.interrupts.running = False
            self.remaining_figures()
            status = 128 + SIGINT if isinstance(error, KeyboardInterrupt) else 1
            self.fail(error)
        flush()
        if os.getpid() != self.pid:  # forked by the code, and came here instead of ending
            os._exit(status)
        for key, value in kept.items():
            if value is None:
                os.environb.pop(key, None)
            else:
                os.environb[key] = value
        self.answers.done(status)
        self.site.add()

    def execute(self, code: str, name: str) -> None:
        self.sources[name] = code
        linecache = sys.modules.get("linecache")
        if linecache is not None:
            linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        tree = compile(code, name, "exec", self.future | TOP_LEVEL_AWAIT | ONLY_AST, True)
        last = None
        if tree.body and isinstance(tree.body[-1], _ast.Expr) and not code.rstrip().endswith(";"):
            last = _ast.Expression(tree.body.pop().value)
        if tree.body:
            compiled = compile(tree, name, "exec", self.future | TOP_LEVEL_AWAIT, True)
            if "__future__" in code:
                self.remember(compiled.co_flags)
            self.evaluate(compiled)
        if last is not None:
            value = self.evaluate(compile(last, name, "eval", self.future | TOP_LEVEL_AWAIT, True))
            if value is not None:
                known_everywhere: Any = builtins
                known_everywhere._ = value
                self.display.show(value, True)

    def remember(self, flags: int) -> None:
        """Keep what the code asks of the compiler for the runs that follow, as a prompt does."""
        import __future__

        for feature in __future__.all_feature_names:
            self.future |= flags & getattr(__future__, feature).compiler_flag

    def evaluate(self, compiled: Any) -> Any:
        value = eval(compiled, self.main)
        if compiled.co_flags & COROUTINE:
            return self.wait(value)
        return value

    def wait(self, coroutine: Any) -> Any:
        import asyncio

        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
        task = self.loop.create_task(coroutine)
        try:
            return self.loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            try:
                self.loop.run_until_complete(task)
            except asyncio.CancelledError:
                pass
            raise

    def figures(self) -> None:
        """Show the figures that nobody has shown."""
        pyplot: Any = sys.modules.get("matplotlib.pyplot")
        numbers: list[int] = getattr(pyplot, "get_fignums", list)()
        try:
            for number in numbers:
                figure = pyplot.figure(number)
                if figure.axes or figure.lines:
                    self.display.bundle({"image/png": picture(figure), "text/plain": repr(figure)}, False)
        finally:  # one that cannot be drawn would fail every run to come
            if numbers:
                pyplot.close("all")

    def remaining_figures(self) -> None:
        """Show the figures of a run that has failed."""
        try:
            self.figures()
        except BaseException as error:
            print("%s: %s" % (type(error).__name__, error), file=sys.stderr)

    def fail(self, error: BaseException) -> None:
        if os.getpid() != self.pid:
            return
        flush()
        name = type(error).__name__
        value = said(error)
        trace = self.trimmed(error.__traceback__)
        sys.last_value = error
        try:
            import traceback

            error.__traceback__ = trace
            lines = "".join(traceback.format_exception(type(error), error, trace)).splitlines()
        except BaseException:
            lines = [name + ": " + value]
        if len(lines) > 1000:
            lines = lines[:500] + [CUT] + lines[-499:]
        self.answers.numbered(b"E", [to_bytes(text[:65536]) for text in [name, value] + lines])

    def trimmed(self, trace: Any) -> Any:
        """Return a traceback without frames of ours, from the first frame of a run on where it has one."""
        first = trace = without_ours(trace)
        while first is not None and first.tb_frame.f_code.co_filename not in self.sources:
            first = first.tb_next
        return trace if first is None else first


def without_ours(trace: Any) -> Any:
    """Take our own frames out of a traceback, wherever they are: before, within and behind those of the code."""
    while trace is not None and trace.tb_frame.f_code.co_filename == OWN_FILE:
        trace = trace.tb_next
    step = trace
    while step is not None:
        after = step.tb_next
        while after is not None and after.tb_frame.f_code.co_filename == OWN_FILE:
            after = after.tb_next
        step.tb_next = after
        step = after
    return trace


def said(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return ""


def exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def leave(code: Any = None) -> None:
    """End this run; the context goes on."""
    raise SystemExit(code)


def received(count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        part = os.read(REQUESTS_FD, count - len(data))
        if not part:
            return None
        data += part
    return data


MAIN_THREAD = _thread.get_ident()


def main(nonce: bytes) -> None:
    context = Context(nonce)
    context.settle()
    context.serve()
