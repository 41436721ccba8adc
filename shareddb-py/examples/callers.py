"""Callers in the place of HTTP: eight that hardly ever rest, until SIGTERM. At the end one line says how they fared."""

import asyncio
import signal
import threading

CALLERS = 8
REST = 0.001


def serve(request):
    """For requests that wait."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    fared = Fared()

    def caller():
        while not stop.is_set():
            try:
                request()
                fared.well()
            except Exception as error:
                fared.badly(error)
            # Where all are at it without a break, pools of threads forget whoever waits.
            stop.wait(REST)

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    # Signals come to the main thread, which has nothing else to do.
    stop.wait()
    for thread in threads:
        thread.join()
    print(fared)


async def serve_async(request):
    """For requests that are awaited."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    fared = Fared()

    async def caller():
        while not stop.is_set():
            try:
                await request()
                fared.well()
            except Exception as error:
                fared.badly(error)
            await asyncio.sleep(REST)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    print(fared)


class Fared:
    """How many requests were served and how many were not, with the first that was not."""

    def __init__(self):
        self.lock = threading.Lock()
        self.calls = self.failures = 0
        self.first = ""

    def well(self):
        with self.lock:
            self.calls += 1
            if self.calls == 1:
                print("serving", flush=True)

    def badly(self, error):
        with self.lock:
            self.failures += 1
            self.first = self.first or f": {type(error).__name__}: {error}"

    def __str__(self):
        return f"{self.calls} requests, {self.failures} failures{self.first}"
