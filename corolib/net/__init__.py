"""Sockets: what is made of `ReadWait` and `WriteWait`.

servers -> listening -> streams -> tls       a handler for each connection
servers -> progress                          who is idle, slow, or makes room
connecting -> streams                        open_tcp, open_unix
datagrams                                    UDP, Unix datagrams
resolving                                    the addresses of a name, for the two before
limits                                       what a server bounds
peer_log                                     what it logs
network                                      opens sockets, looks names up
"""
