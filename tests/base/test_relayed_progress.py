"""What a stage in another process says is shown as if it had been said here; whose a task is."""

import pickle

from vidssl.base.progress import Named
from vidssl.base.relayed_progress import ProgressReceiver, ProgressSender


class Noting:
    """A progress whose tasks note what is done to them, in one list."""

    def __init__(self) -> None:
        self.did: list[tuple] = []

    def say(self, text):
        self.did.append(("say", text))

    def task(self, description, total, unit, done=0):
        self.did.append(("task", description, total, unit, done))
        return NotingTask(description, self.did)


class NotingTask:
    def __init__(self, name, did):
        self.name, self.did = name, did

    def advance(self, n=1, **figures):
        self.did.append((self.name, "advance", n, figures))

    def note(self, text):
        self.did.append((self.name, "note", text))

    def __enter__(self):
        self.did.append((self.name, "begin"))
        return self

    def __exit__(self, *error):
        self.did.append((self.name, "end"))


def work(progress):
    """Two tasks at a time, whose calls alternate."""
    progress.say("hello")
    with progress.task("long", 10, "step", 3) as long:
        long.advance(2, loss=0.5)
        with progress.task("short", None, "video") as short:
            short.advance()
            long.advance(1, epoch="2")
            short.note("a word")
    progress.say("bye")


def relayed(progress) -> tuple[ProgressSender, ProgressReceiver]:
    """A pair with pickle between, as in a pipe."""
    receiver = ProgressReceiver(progress)
    return ProgressSender(lambda call: receiver.repeat(pickle.loads(pickle.dumps(call)))), receiver


def test_it_is_as_if_it_were_said_here():
    here, there = Noting(), Noting()
    work(here)
    sender, receiver = relayed(there)
    work(sender)
    receiver.close()
    assert there.did == here.did and len(here.did) == 12


def test_what_a_dead_process_left_open_is_ended():
    there = Noting()
    sender, receiver = relayed(there)
    sender.task("one", 1, "step").__enter__()
    sender.task("two", 1, "step").__enter__()
    receiver.close()
    receiver.close()
    assert there.did[-2:] == [("two", "end"), ("one", "end")]
    assert len([done for done in there.did if done[-1] == "end"]) == 2


def test_a_name_stands_before_every_task():
    progress = Noting()
    work(Named(progress, "rgb"))
    assert [did for did in progress.did if did[0] == "task"] == [
        ("task", "rgb: long", 10, "step", 3),
        ("task", "rgb: short", None, "video", 0),
    ]
    assert progress.did[0] == ("say", "hello")
