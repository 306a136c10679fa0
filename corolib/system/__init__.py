"""This program among others, and under systemd: what needs more of the system than sockets.

subprocesses     child programs                  stdin      the input of this very program
pipe_ends        pipes, as streams take them     workers    several processes, one listener
process_pool     a function in another process   systemd    sockets from systemd, messages to it
"""
