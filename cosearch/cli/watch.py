"""A process beside the one that works: it tells how that one ended where that one could not.

Code of others runs in the working process: environments, simulators, runtimes. Any of it can end the process at once, with
exit code 0 as well, past every handler in it. So the program forks before it imports anything heavy. The child works; its
parent waits, hands signals on and gives back the exit code. Where the child ended without saying that it was done, the parent
says so, and the code is never 0. It takes a few milliseconds and the memory of a bare Python.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

HANDED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
BY_THE_TERMINAL = 0x80  # SI_KERNEL of <bits/siginfo-consts.h>: Ctrl-C reaches the child by itself
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def watched(work: Callable[[], int]) -> int:
    """Do some work in a child process, and wait for its end; where the system is not Linux, do it here.

    Args:
        work: gives the exit code.

    Returns:
        The exit code: the child's, 1 where the work raised; 1 where it ended with 0 before the work was done. A child that a
        signal ended ends this process in the same way.
    """
    if sys.platform != "linux":
        return work()
    parent, (said, say) = os.getpid(), os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*HANDED_ON, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it ends with its parent
        if os.getppid() != parent:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(said)
        os.set_inheritable(say, False)
        try:
            code = work()
        except Exception:  # an error of ours, which its traceback tells
            os.write(say, b".")
            raise
        os.write(say, b".")
        return code
    os.close(say)
    return _waited(child, said)


def _waited(child: int, said: int) -> int:
    while True:
        came = signal.sigwaitinfo({*HANDED_ON, signal.SIGCHLD})
        if came.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
        elif came.si_code != BY_THE_TERMINAL:
            os.kill(child, came.si_signo)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:  # whose handling nobody can set
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    code = os.waitstatus_to_exitcode(status)
    os.set_blocking(said, False)
    try:
        done = os.read(said, 1)
    except BlockingIOError:  # another process has the pipe and wrote nothing
        done = b""
    if done:
        return code
    sys.stderr.write(
        f"error: the process was ended from inside, with exit code {code}, before there was a result: by the environment or "
        "a library (env.step_limit_s=SECONDS steps environments in a process of their own and says which). A run that had begun "
        "goes on with `cosearch resume FOLDER`\n"
    )
    return code or 1
