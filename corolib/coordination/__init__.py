"""Coordination: what can be made of `Suspend` and cancel scopes alone. No file is known here.

`first` takes waits for files as well, as any other trap.

groups       tasks that end together        first      one of several waits is taken
timeouts     bounds in time, shields        locks      Lock, Event, Condition, Barrier ...
queues       items, first come              topics     one item, many subscribers
threads      blocking calls, and back       signals    signals as values
thread_pool  the threads that make them     waitqueue  who waits, first come, first served
"""
