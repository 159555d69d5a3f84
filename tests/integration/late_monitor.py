"""Stands between the qemu driver and the monitors of its VMs, and kills the driver in the middle of a call: at the n-th command that it
sends, which QEMU then never gets, or gets only when the next driver is connected already.

    with LateMonitor(folder) as monitor, Driver(folder, binary=monitor.binary) as driver:
        monitor.attach(driver)
        answer, killed = monitor.killed_at(5, LATE, "snapshot", id="s0")

Nothing here is timed: a command that is late has been carried out by QEMU before the next driver's connection gets its greeting, as QEMU
serves one client of a monitor after the other.
"""
import contextlib
import json
import os
import pathlib
import shutil
import socket
import threading

NEVER, LATE = "never", "late"


class LateMonitor:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.binary = str(self.folder / "qemu-behind")
        self.lock = threading.Lock()
        self.next_client = threading.Event()
        self.driver = self.listener = None
        self.countdown, self.when = None, None
        self.answer_for = {}  # commands that QEMU never gets, and what is returned in its stead
        self.before = {}  # commands, and what is done before QEMU gets them

    def __enter__(self):
        # QEMU listens beside the socket that the driver knows.
        pathlib.Path(self.binary).write_text(f'#!/bin/bash\nexec {shutil.which("qemu-system-x86_64")} "${{@//qmp.sock/real.sock}}"\n')
        os.chmod(self.binary, 0o755)
        return self

    def __exit__(self, *_):
        if self.listener is not None:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.thread.join(30)
            self.listener.close()

    def attach(self, driver):
        self.driver = driver
        driver.directory().mkdir(parents=True, exist_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(driver.directory() / "qmp.sock"))
        self.listener.listen(8)
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def kill_at(self, number, when, verb, **fields):
        """Kills the driver at its command `number` (from 0, queries do not count). Returns the call's answer if it came to one."""
        with self.lock:
            self.countdown, self.when = number, when
        self.driver.ask(verb, **fields)
        line = self.driver.process.stdout.readline()
        with self.lock:
            killed, self.countdown = self.countdown is None, None
        if not killed:
            return self.driver.answer(verb, line)
        self.driver.kill()
        return None

    def killed_at(self, number, when, verb, **fields):
        """The same, and the call is said again. Returns its answer, and whether anything was killed."""
        answer = self.kill_at(number, when, verb, **fields)
        return (self.driver.call(verb, **fields), True) if answer is None else (answer, False)

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.next_client.set()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        done = threading.Event()  # with the command that was held back
        with client, socket.socket(socket.AF_UNIX) as monitor:
            try:
                monitor.connect(str(self.driver.directory() / "real.sock"))
            except OSError:
                return  # QEMU does not listen (yet): the driver sees its connection closed
            held = []
            copying = threading.Thread(target=self._copy_answers, args=(monitor, client, held, done), daemon=True)
            copying.start()
            with contextlib.suppress(OSError):
                for line in client.makefile("rb"):
                    command = json.loads(line)
                    if self._kills(command):
                        held.append(command["id"])
                        self._kill(line, monitor, done)
                        break
                    if command["execute"] in self.answer_for:
                        answer = {"return": self.answer_for[command["execute"]], "id": command["id"]}
                        client.sendall(json.dumps(answer).encode() + b"\n")
                    else:
                        self.before.get(command["execute"], lambda: None)()
                        monitor.sendall(line)
            with contextlib.suppress(OSError):
                monitor.shutdown(socket.SHUT_RDWR)
            copying.join()

    def _kills(self, command):
        with self.lock:
            if self.countdown is None or command["execute"].startswith("query-"):
                return False
            self.countdown -= 1
            if self.countdown >= 0:
                return False
            self.countdown = None
            return True

    def _kill(self, line, monitor, done):
        self.next_client.clear()
        self.driver.process.kill()
        if self.when == LATE:
            self.next_client.wait()
            monitor.sendall(line)
            done.wait()

    @staticmethod
    def _copy_answers(monitor, client, held, done):
        with contextlib.suppress(OSError):
            for line in monitor.makefile("rb"):
                if json.loads(line).get("id") in held:
                    break
                with contextlib.suppress(OSError):
                    client.sendall(line)
        done.set()
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
