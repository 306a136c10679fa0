"""This program among others, and under systemd: what needs more of the system than sockets.

subprocesses     child programs                  stdin      the input of this very program
process_pool     a function in another process   workers    several processes, one listener
systemd          sockets from systemd, and a word back
"""
