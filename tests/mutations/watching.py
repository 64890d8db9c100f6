"""One case in a process of its own, under limits: what became of it.

The process is a fork of one that has imported and read everything once. So a crash costs one case, and what one case leaves
behind cannot reach another.
"""

import ctypes
import faulthandler
import json
import os
import platform
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

CPU_SECONDS = 10
# Of the clock: others may use the machine, and something may wait for what never comes.
WALL_SECONDS = 240
MEMORY = 2 << 30
# No case can take the machine's memory before it is seen.
MORE_DATA = 3 << 30
FILE_SIZE = 1 << 30
MESSAGE_LENGTH = 600
OURS = ("action_llm", "action_llm_datasets", "builtins")
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
DATA, TYPED = "data", "typed error"


class Outcome(NamedTuple):
    """What became of a case.

    Attributes:
        result: `DATA`, `TYPED`, or what is wrong, in words that are equal for equal faults.
        detail: The message of the error, or where the process was.
        seconds: Of CPU.
        memory: Bytes, the most that were resident.
    """

    result: str
    detail: str
    seconds: float = 0.0
    memory: int = 0

    @property
    def is_failure(self) -> bool:
        return self.result not in (DATA, TYPED)

    def __str__(self) -> str:
        return f"{self.result}, {self.seconds:.1f} s, {self.memory >> 20} MiB\n{self.detail}"


class Task(NamedTuple):
    """What a process of its own is to do.

    Attributes:
        key: Tells it from others.
        fill: Writes the input into a folder, which is empty.
        read: Reads it there.
        names: What an error may name in place of a file of the folder.
    """

    key: object
    fill: Callable[[Path], None]
    read: Callable[[Path], None]
    names: Collection[str] = ()


def watched(tasks: Iterable[Task], workers: int, folder: Path) -> Iterator[tuple[Task, Outcome]]:
    """The outcome of each task, in the order in which they end.

    Args:
        tasks: In the order in which they begin.
        workers: Processes at a time.
        folder: Where they may write.
    """
    running: dict[int, _Process] = {}
    free, tasks = list(range(workers)), iter(tasks)
    exhausted = False
    try:
        while running or not exhausted:
            while free and not exhausted:
                task = next(tasks, None)
                if task is None:
                    exhausted = True
                    break
                process = _start(task, folder / f"worker{free.pop()}")
                running[process.pid] = process
            ended = [pid for pid in running if running[pid].has_ended()]
            for pid in ended:
                process = running.pop(pid)
                free.append(int(process.folder.name.removeprefix("worker")))
                yield process.task, process.outcome()
            if not ended:
                time.sleep(0.002)
    finally:
        for process in running.values():
            process.kill()


@dataclass
class _Process:
    pid: int
    task: Task
    folder: Path
    deadline: float
    status: int | None = None
    usage: object = None
    timed_out: bool = False

    def has_ended(self) -> bool:
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid == 0 and time.monotonic() > self.deadline:
            self.timed_out = True
            os.kill(self.pid, signal.SIGABRT)  # `faulthandler` tells where it is
            time.sleep(1)
            self.kill()
            pid, status, usage = os.wait4(self.pid, 0)
        if pid:
            self.status, self.usage = status, usage
        return bool(pid)

    def kill(self) -> None:
        for kill in (os.killpg, os.kill):  # a process that has just been forked leads no group
            try:
                kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def outcome(self) -> Outcome:
        seconds, memory = self.usage.ru_utime + self.usage.ru_stime, self.usage.ru_maxrss << 10
        told = self.folder / "outcome.json"
        printed = (self.folder / "printed.txt").read_text(encoding="utf-8", errors="replace")
        if os.WIFSIGNALED(self.status):
            number = os.WTERMSIG(self.status)
            if number == signal.SIGXCPU:
                result = f"hang: over {CPU_SECONDS} s of CPU"
            elif self.timed_out:
                result = f"hang: over {WALL_SECONDS} s"
            elif number == signal.SIGSYS:
                result = "network: a socket was opened"
            else:
                result = f"crash: {signal.Signals(number).name}"
            result, detail = f"{result} in {_place_in_dump(printed)}", printed[-3000:]
        elif told.is_file():
            result, detail = json.loads(told.read_text(encoding="utf-8"))
        else:
            result, detail = f"crash: status {os.waitstatus_to_exitcode(self.status)}", printed[-3000:]
        if memory > MEMORY:
            result = f"memory: over {MEMORY >> 30} GiB ({result})"
        return Outcome(result, detail, seconds, memory)


def _start(task: Task, folder: Path) -> _Process:
    shutil.rmtree(folder, ignore_errors=True)
    root = folder / "input"
    root.mkdir(parents=True)
    task.fill(root)
    (folder / "printed.txt").touch()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            _run(task, root)
        finally:
            os._exit(70)
    return _Process(pid, task, folder, time.monotonic() + WALL_SECONDS)


def _run(task: Task, root: Path) -> None:
    """In the process of the case; does not return."""
    folder = root.parent
    os.setpgid(0, 0)
    os.chdir(folder)
    tempfile.tempdir = str(folder)
    with open(os.devnull) as nothing, open("printed.txt", "w") as printed:
        os.dup2(nothing.fileno(), 0)
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    faulthandler.enable(2)
    for number in (signal.SIGXCPU, signal.SIGSYS):
        signal.signal(number, signal.SIG_DFL)
        faulthandler.register(number, file=2, all_threads=False, chain=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_DATA, (_data_size() + MORE_DATA,) * 2)
    refuse_network()
    misdeeds: list[str] = []
    sys.addaudithook(lambda event, arguments: _audit(event, arguments, folder, misdeeds))
    try:
        task.read(root)
        result, detail = DATA, ""
    except BaseException as error:
        result, detail = judge(error, root, task.names)
    if misdeeds:
        result, detail = misdeeds[0], detail
    (folder / "outcome.json").write_text(json.dumps([result, detail[:4000]]))
    os._exit(0)


def _data_size() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    return MEMORY


# ------------------------------------------------------------------------------------------------------------- judging


def judge(error: BaseException, root: Path, names: Collection[str] = ()) -> tuple[str, str]:
    """Whether an error is what somebody can act upon: (`TYPED` or what is wrong, the message)."""
    try:
        message = str(error)
    except Exception as other:
        return f"{type(error).__name__} without a message", f"str() raises {type(other).__name__}"
    kind, module = type(error).__name__, type(error).__module__
    where = _place(error)
    trace = "".join(traceback.format_exception(error)[-6:])
    detail = f"{message}\n\n{trace}"
    if kind == "NotCheckedError":
        return f"data that cannot be right: {re.sub(r'[-+.e0-9]{2,}', 'N', message)[:80]}", detail
    if isinstance(error, ImportError) and "install" in message:  # a config that asks for a library which is optional
        return TYPED, message
    is_ours = module.partition(".")[0] in OURS or _is_recipe(module)
    if not (isinstance(error, OSError) or (isinstance(error, ValueError) and is_ours)) or isinstance(
        error, UnicodeError
    ):
        return f"{kind} in {where}", detail
    if re.search(r"MemoryError|[Uu]nable to allocate|not enough memory", message):
        return f"{kind} behind which memory ran out, in {where}", detail
    message = message.replace(str(root), "…")
    files = {path.name for path in root.rglob("*")} if root.is_dir() else set()
    if not any(name in message for name in {*files, *names} if name):
        return f"{kind} that names no file, in {where}", detail
    if len(message) > MESSAGE_LENGTH:
        return f"{kind} of more than {MESSAGE_LENGTH} characters, in {where}", detail
    if "\n" in message.strip():
        return f"{kind} of several lines, in {where}", detail
    return TYPED, message


def _is_recipe(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and RECIPES in Path(file).resolve().parents


def _place(error: BaseException) -> str:
    """Module and function that raised, and before that the last ones of this project."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "?"
    own = [
        frame
        for frame in frames
        if re.search(r"/(modeling|action_llm|datasets_scripts|action_llm_datasets|recipes)/[^/]*$", frame.filename)
    ]
    places = [own[-1], frames[-1]] if own else [frames[-1]]
    return " ← ".join(dict.fromkeys(f"{Path(frame.filename).name}:{frame.name}" for frame in reversed(places)))


def _place_in_dump(printed: str) -> str:
    """The same of what `faulthandler` wrote, whose innermost frame comes first."""
    frames = re.findall(r'File "([^"]+)", line \d+ in (\S+)', printed.rpartition("most recent call first")[2])
    if not frames:
        return "?"
    own = [
        frame
        for frame in frames
        if re.search(r"/(modeling|action_llm|datasets_scripts|action_llm_datasets|recipes)/[^/]*$", frame[0])
    ]
    places = [frames[0], own[0]] if own else [frames[0]]
    return " ← ".join(dict.fromkeys(f"{Path(file).name}:{function}" for file, function in places))


# ------------------------------------------------------------------------------------------------- network and misdeeds


def _audit(event: str, arguments: tuple, folder: Path, misdeeds: list[str]) -> None:
    if event == "builtins.input":
        misdeeds.append("question: something asked at the terminal")
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        misdeeds.append(f"program: {event} ran one")
    elif event == "open":
        path, _, flags = arguments
        if isinstance(path, str) and flags & (os.O_WRONLY | os.O_RDWR) and path != os.devnull:
            place = os.path.realpath(path)
            if not place.startswith(f"{os.path.realpath(folder)}/"):
                misdeeds.append("write: a file outside of the working folder was opened for writing")


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction))]


def refuse_network() -> bool:
    """Ends this process with SIGSYS once it opens a socket for IPv4 or IPv6, in Python or in C; Linux alone can do that."""
    socket_call = {"x86_64": 41, "aarch64": 198}.get(platform.machine())
    if sys.platform != "linux" or socket_call is None:
        return False
    load, jump_if_equal, answer = 0x20, 0x15, 0x06
    allow, trap = 0x7FFF0000, 0x00030000
    program = (_Instruction * 7)(
        (load, 0, 0, 0),  # the number of the call
        (jump_if_equal, 0, 3, socket_call),
        (load, 0, 0, 16),  # its first argument, the family
        (jump_if_equal, 2, 0, 2),  # AF_INET
        (jump_if_equal, 1, 0, 10),  # AF_INET6
        (answer, 0, 0, allow),
        (answer, 0, 0, trap),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        return False
    filters = _Program(len(program), ctypes.cast(program, ctypes.POINTER(_Instruction)))
    return libc.prctl(22, 2, ctypes.byref(filters), 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
