"""A scheduler to begin with: it runs its tasks in turn, and does not look at what they wait for.

Make it better, law by law; which of them hold, the judge tells:

    $ python3 -m demos.tour.check mine.py

A task yields what it waits for. For the first laws that is `ReadWait` or `WriteWait`; those about
time are tried as soon as there is a class `Sleep`, whose argument is a number of seconds. What else
you may add, and under which names, stands on the page of the tour, under "Your own".
"""

from collections import deque


class ReadWait:
    """Wait until a file can be read."""

    def __init__(self, file):
        self.file = file


class WriteWait:
    """Wait until a file can be written."""

    def __init__(self, file):
        self.file = file


class Scheduler:
    """Runs tasks, which are generators. A new one is made for each law."""

    def __init__(self):
        self.tasks = deque()

    def spawn(self, task):
        """Start another task; return at once."""
        self.tasks.append(task)

    def run(self, main):
        """Run this task, and all that are spawned meanwhile."""
        self.spawn(main)
        while self.tasks:
            task = self.tasks.popleft()
            try:
                task.send(None)  # returns what the task waits for: nobody looks at that yet
            except StopIteration:  # the task has returned
                continue
            self.tasks.append(task)
