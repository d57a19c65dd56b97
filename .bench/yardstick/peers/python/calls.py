# Python's multiprocessing.Pool: calls with an input of size bytes, of which the function reads a byte a page, twice as
# many at once as there are workers. Arguments: workers, size, seconds, and "shared" for an input in shared memory, of
# which a call has the name. Prints "begin", then how it went, and ends by SIGTERM.
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing import shared_memory


def job(data):
    return sum(data[::4096])


def job_shared(name):
    memory = shared_memory.SharedMemory(name)
    total = sum(memory.buf[::4096])
    memory.close()
    return total


def load(pool, job, arg, pages, workers, seconds):
    took, rest, done = [], [2 * workers], threading.Event()
    until = time.perf_counter() + seconds

    def call():  # each end is the next beginning; ends run on the pool's thread
        began = time.perf_counter()

        def end(total):
            if total != pages:
                os._exit(1)
            took.append(time.perf_counter() - began)
            if time.perf_counter() < until:
                call()
            else:
                rest[0] -= 1
                if rest[0] == 0:
                    done.set()

        pool.apply_async(job, (arg,), callback=end, error_callback=lambda e: os._exit(1))

    began = time.perf_counter()
    for _ in range(2 * workers):
        call()
    done.wait()
    return took, time.perf_counter() - began


if __name__ == "__main__":
    workers, size, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    arg, pages = b"\1" * size, (size + 4095) // 4096
    memory = None
    if sys.argv[4:] == ["shared"]:
        memory = shared_memory.SharedMemory(create=True, size=pages * 4096)
        memory.buf[:size] = arg
        job, arg = job_shared, memory.name

    def end(*_):
        if memory:
            memory.unlink()
        os.killpg(0, signal.SIGKILL)  # Pool.terminate may hang

    with multiprocessing.Pool(workers) as pool:
        signal.signal(signal.SIGTERM, end)
        load(pool, job, arg, pages, workers, 0.3)
        print("begin", flush=True)
        took, elapsed = load(pool, job, arg, pages, workers, seconds)
        took.sort()
        p50, p99 = (took[min(int(q * len(took)), len(took) - 1)] * 1e6 for q in (0.5, 0.99))
        print(json.dumps({"n": len(took), "seconds": elapsed, "p50_us": p50, "p99_us": p99}), flush=True)
        signal.pause()
