"""Types at a program through a terminal of its own, and prints what it shows.

Arguments: the program and its arguments; what is typed is read from standard input,
a line each, where \\t is the tab key. After each line the program may speak until it
has been silent for a while; the end is when it has read everything."""
import os, pty, select, sys, time

typed = [line.rstrip("\n").encode().decode("unicode_escape").encode() for line in sys.stdin]
pid, fd = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execvp(sys.argv[1], sys.argv[1:])


def listen(silence, most):
    end, out = time.monotonic() + most, b""
    while time.monotonic() < end and select.select([fd], [], [], silence)[0]:
        try:
            part = os.read(fd, 65536)
        except OSError:
            break
        if not part:
            break
        if b"\x1b[6n" in part:
            os.write(fd, b"\x1b[1;1R")  # it asks where the cursor is
        out += part
    return out


shown = listen(2.0, 15)
for line in typed:
    try:
        os.write(fd, line)
    except OSError:
        break
    shown += listen(0.7, 8)
sys.stdout.buffer.write(shown)
sys.stdout.flush()
os.close(fd)
os.waitpid(pid, 0)
